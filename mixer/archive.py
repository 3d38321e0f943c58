"""``mosaique archive``: the configured archive from the command line, with or without a running server.

Exit status 0; 1 when something is damaged or could not be done; 2 for usage, which a query that no search takes is
too. What is read, fetched or decided here stands in the audit log like everything else, under the name of the
account.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from mixer import config
from mixer.errors import ConfigError, MosaiqueError
from mixer.http.holdings import public
from mixer.kept_secrets import make_data_dir, with_secrets
from recording.archive import StoredFile
from recording.audit import MAX_NAMED
from recording.audit_copy import compare_audit, copy_audit, restore_audit
from recording.errors import BadQuery, BadTerms, RecordingError
from recording.fixity import damaged
from recording.holdings import Holdings
from recording.rows import MAX_LIMIT, ONLY, STATES, Query, RecordingInfo
from recording.stores import open_both

_ROLE: Final = "operator"
_Run = Callable[[Holdings, argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``mosaique archive``."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: ./mosaique.toml)")
    common.add_argument("--set", action="append", default=[], dest="assignments", metavar="SECTION.KEY=VALUE",
                        help="set one key; may be given several times")  # fmt: skip
    common.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: _Run, summary: str, *, one: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=summary, description=summary + ".")
        sub.set_defaults(archive_run=run)
        if one:
            sub.add_argument("id", metavar="ID", help="the recording")
        return sub

    listing = command("ls", _ls, "List recordings, newest first", one=False)
    for name, text in (
        ("room", "of this room"), ("from", "not before this date or time"), ("to", "not after this date or time"),
        ("q", "words of note, room, people"), ("participant", "words of a participant's name, or the id"),
    ):  # fmt: skip
        listing.add_argument(f"--{name}", dest=f"{name}_" if name == "from" else name, help=text)
    listing.add_argument("--state", choices=STATES)
    listing.add_argument("--only", choices=ONLY, help="under a hold, past the retention, or damaged")
    listing.add_argument("--limit", type=int, default=50, help="how many at most, 0 for all (default: 50)")

    command("show", _show, "Show all that is known of a recording")
    get = command(
        "get", _get, "Fetch a recording's package, or some of its files, each compared with what was sealed"
    )
    get.add_argument("paths", metavar="PATH", nargs="*", help="files of the package (default: all, as a bag)")
    get.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)"
    )
    get.add_argument("--zip", action="store_true", help="the whole package as one ZIP")
    verify = command(
        "verify", _verify, "Read every byte again and compare it with what was sealed", one=False
    )
    verify.add_argument("ids", metavar="ID", nargs="*", help="recordings")
    verify.add_argument("--all", action="store_true", help="every archived recording")
    command("reindex", _reindex, "Make the index again from the archive: recordings, holds, retention, tombstones, "
            "audit log", one=False)  # fmt: skip
    audit = command("audit", _audit, "Show the audit log, newest first, or check it", one=False)
    audit.add_argument("--recording", metavar="ID", help="only lines about this recording")
    audit.add_argument("--limit", type=int, default=50, help="how many lines at most (default: 50)")
    audit.add_argument("--verify", action="store_true", help="follow every chain, check every signature, compare with "
                       "the archive's copy")  # fmt: skip
    command("hold", _hold, "Place a legal hold").add_argument("--reason", required=True)
    command("release", _release, "End a legal hold").add_argument("--reason", default="")
    command("retain", _retain, "Keep a recording at least until a date").add_argument(
        "--until", required=True, metavar="DATE", help="a date (to its end), a time, or none"
    )
    command("delete", _delete, "Delete a recording; leaves a signed tombstone").add_argument(
        "--reason", required=True
    )
    command("key", _key, "Print the public key of tombstones and audit log", one=False)


def run(args: argparse.Namespace) -> int:
    """Run one of them. Raises ``ConfigError`` (usage) and ``MosaiqueError`` (failed)."""
    settings = with_secrets(config.load(file=args.config, assignments=args.assignments))
    data = make_data_dir(settings)
    try:
        holdings = Holdings.open(
            data, open_both(settings.archive.places()), mode=settings.archive.retention_mode
        )
        with contextlib.closing(holdings):
            command: _Run = args.archive_run
            return command(holdings, args)
    except (BadQuery, BadTerms) as error:
        raise ConfigError(str(error)) from error
    except RecordingError as error:
        raise MosaiqueError(str(error)) from error
    except OSError as error:
        raise MosaiqueError(f"{error.filename or 'the archive'}: {error.strerror}") from error


# --- looking -----------------------------------------------------------------------------------------------


def _ls(holdings: Holdings, args: argparse.Namespace) -> int:
    found = []
    for info in _found(holdings, args, args.limit):
        if args.json:
            found.append(public(info))
        else:
            _say(
                f"{info.id}  {info.started[:16].replace('T', ' ')}  {_duration(info.duration_s):>8}  "
                f"{_size(info.size):>9}  {info.state:10}  {info.room}  {_flags(info)}{info.note}".rstrip()
            )
    if args.json:
        _say_json(found)
    return 0


def _found(holdings: Holdings, args: argparse.Namespace, limit: int) -> Iterator[RecordingInfo]:
    cursor = None
    left = limit if limit > 0 else sys.maxsize
    while left:
        page = holdings.archive.search(
            Query(
                room=args.room, from_=_moment(args.from_), to=_end(args.to), q=args.q, participant=args.participant,
                state=args.state, only=args.only, cursor=cursor, limit=min(left, MAX_LIMIT),
            )
        )  # fmt: skip
        yield from page.recordings
        left -= len(page.recordings)
        cursor = page.cursor
        if cursor is None:
            return


def _show(holdings: Holdings, args: argparse.Namespace) -> int:
    info = holdings.archive.get(args.id)
    told = public(info)
    told["files"] = (
        [file.model_dump() for file in holdings.archive.files(info.id)] if info.state == "archived" else []
    )
    if args.json:
        _say_json(told)
        return 0
    for name, value in told.items():
        if name == "participants":
            _say(f"{name}: {', '.join(stay['name'] for stay in value)}")
        elif name == "files":
            _say(
                "files:",
                *(f"  {file['sha256']}  {file['size']:>12}  {file['path']}" for file in value),
                end="\n",
            )
        elif value not in (None, "", []):
            _say(
                f"{name}: {', '.join(f'{k}={v}' for k, v in value.items()) if isinstance(value, dict) else value}"
            )
    return 0


def _key(holdings: Holdings, args: argparse.Namespace) -> int:
    fingerprint = holdings.custody.fingerprint
    if args.json:
        _say_json({"fingerprint": fingerprint, "pem": holdings.custody.public_pem.decode()})
    else:
        _say(f"fingerprint: {fingerprint}", holdings.custody.public_pem.decode().rstrip())
    return 0


# --- fetching and checking ---------------------------------------------------------------------------------


def _get(holdings: Holdings, args: argparse.Namespace) -> int:
    archive = holdings.archive
    info = archive.get(args.id)
    if not args.output.is_dir():
        raise ConfigError(f"--output takes a folder; there is none at {args.output}")
    if args.zip and args.paths:
        raise ConfigError("--zip is for the whole package; name no files with it")
    paths = args.paths or [file.path for file in archive.files(info.id)]
    files = [archive.open_file(info.id, path) for path in paths]
    by = _who()
    if args.paths:
        for path in args.paths:
            holdings.audit.add("read", by=by, role=_ROLE, recording=info.id, path=path)
    else:
        holdings.audit.add("export", by=by, role=_ROLE, recording=info.id)
    with _bar(sum(file.size for file in files), info.id) as bar:
        if args.zip:
            target = args.output / f"{info.room}-{info.id}.zip"
            _write(target, archive.bag(info.id), bar, None)
            _say(str(target))
            return 0
        for file in files:
            target = args.output / (Path(info.id) / file.path if not args.paths else Path(file.path).name)
            _write(target, file.read(), bar, file)
            if args.paths:
                _say(str(target))
    if not args.paths:
        _say(str(args.output / info.id))
    return 0


def _write(target: Path, chunks: Iterator[bytes], bar: tqdm[Any], file: StoredFile | None) -> None:
    """Write whole or not at all, compared with what was sealed; never over a file that is there."""
    if target.exists():
        raise MosaiqueError(f"{target} is there already, and is not overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as out:
            for chunk in chunks:
                out.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if file is not None and digest.hexdigest() != file.sha256:
            raise MosaiqueError(
                f"{file.path} is not what was sealed: the archive's copy is damaged; it was not kept"
            )
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _verify(holdings: Holdings, args: argparse.Namespace) -> int:
    if bool(args.ids) == args.all:
        raise ConfigError("verify takes ids, or --all")
    ids = args.ids or [info.id for info in _all_archived(holdings)]
    results = []
    bad = 0
    for number, identifier in enumerate(ids, 1):
        with _bar(0, f"{number}/{len(ids)} {identifier}") as bar:
            info, found = holdings.custody.verify(identifier, by=_who(), progress=_Reading(bar))
        files = damaged(found)
        holdings.audit.add(
            "verify",
            by=_who(),
            role=_ROLE,
            recording=info.id,
            ok=found["ok"],
            damaged=list(files[:MAX_NAMED]),
        )
        bad += not found["ok"]
        results.append({"id": info.id, **found})
        if not args.json:
            _say(f"{info.id}  {'ok' if found['ok'] else 'DAMAGED: ' + ', '.join(files)}")
    if args.json:
        _say_json(results)
    return 1 if bad else 0


def _all_archived(holdings: Holdings) -> Iterator[RecordingInfo]:
    everything = argparse.Namespace(
        room=None, from_=None, to=None, q=None, participant=None, state="archived", only=None
    )
    return _found(holdings, everything, 0)


def _reindex(holdings: Holdings, args: argparse.Namespace) -> int:
    keys = holdings.keys.learn(holdings.store)
    logs = restore_audit(holdings.audit, holdings.store)
    with tqdm(desc="reindex", unit=" recordings", disable=None) as bar:
        count, problems = holdings.custody.reindex(lambda: bar.update(1))
    holdings.audit.add("reindex", by=_who(), role=_ROLE, recordings=count, keys=keys, logs=logs)
    if args.json:
        _say_json({"recordings": count, "keys": keys, "audit_logs": logs, "problems": problems})
    else:
        _say(f"{count} recordings", *(f"believed from now on: key {key}" for key in keys))
        if logs:
            _say(f"{logs} audit logs brought back")
        sys.stderr.writelines(f"mosaique: {problem}\n" for problem in problems)
    return 1 if problems else 0


def _audit(holdings: Holdings, args: argparse.Namespace) -> int:
    if args.verify:
        report = holdings.audit.verify(holdings.keys)
        problems = [*report.problems, *compare_audit(holdings.audit, holdings.store)]
        if args.json:
            _say_json({"ok": not problems, "lines": report.lines, "problems": problems})
        else:
            _say(
                f"{report.lines} lines, {report.checkpoints} checkpoints: {'ok' if not problems else 'NOT OK'}"
            )
            sys.stderr.writelines(f"mosaique: {problem}\n" for problem in problems)
        if not problems:
            copy_audit(holdings.audit, holdings.store)
        return 1 if problems else 0
    recording = holdings.archive.get(args.recording).id if args.recording else None
    page = holdings.audit.read(recording=recording, limit=args.limit)
    if args.json:
        _say_json([{"id": line.cursor, **line.body} for line in page.lines])
        return 0
    for line in page.lines:
        detail = " ".join(f"{name}={value}" for name, value in line.body["detail"].items())
        about = line.body["recording"] or "-"
        _say(f"{line.body['time']}  {about:26}  {line.body['act']:14}  {line.body['by']}  {detail}".rstrip())
    return 0


# --- deciding ----------------------------------------------------------------------------------------------


def _hold(holdings: Holdings, args: argparse.Namespace) -> int:
    info = holdings.custody.hold(args.id, by=_who(), reason=args.reason)
    return _decided(holdings, args, "hold", info, reason=args.reason)


def _release(holdings: Holdings, args: argparse.Namespace) -> int:
    info = holdings.custody.release(args.id, by=_who(), reason=args.reason)
    return _decided(holdings, args, "release", info, reason=args.reason)


def _retain(holdings: Holdings, args: argparse.Namespace) -> int:
    until = None if args.until == "none" else _end(args.until)
    info = holdings.custody.retain(args.id, by=_who(), until=until)
    return _decided(holdings, args, "retain", info, until=until)


def _delete(holdings: Holdings, args: argparse.Namespace) -> int:
    holdings.custody.delete(args.id, by=_who(), reason=args.reason)
    return _decided(holdings, args, "delete", holdings.archive.get(args.id), reason=args.reason)


def _decided(
    holdings: Holdings, args: argparse.Namespace, act: str, info: RecordingInfo, **detail: Any
) -> int:
    holdings.audit.add(act, by=_who(), role=_ROLE, recording=info.id, **detail)
    if args.json:
        _say_json(public(info))
    else:
        _say(f"{info.id}  {info.state}  {_flags(info)}".rstrip())
    return 0


# --- saying ------------------------------------------------------------------------------------------------


class _Reading:
    """Moves a bar with a verification."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def __call__(self, path: str, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def _bar(total: int, name: str) -> tqdm[Any]:
    """On standard error, and only for a person."""
    return tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None, leave=False)


def _say(*lines: str, end: str = "\n") -> None:
    sys.stdout.write("\n".join(lines) + end)


def _say_json(data: object) -> None:
    _say(json.dumps(data, indent=1, ensure_ascii=False))


def _who() -> str:
    """The account that the command runs under."""
    try:
        return f"account:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's number without a name
        return f"account:{os.getuid()}"


def _moment(text: str | None) -> str | None:
    """A date or a time, in this machine's zone where it names none, as RFC 3339."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{text!r} is neither a date nor a time, like 2026-11-22 or 2026-11-22T10:00:00Z"
        ) from error


def _end(text: str | None) -> str | None:
    """The same of what something ends with: a date alone is meant to its last second, as on the archive page."""
    if text is None or not _is_date(text):
        return _moment(text)
    return _moment(f"{text}T23:59:59")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f} MB"


def _flags(info: RecordingInfo) -> str:
    flags: Sequence[str] = [
        *(["[held]"] if info.hold else []),
        *([f"[kept until {info.retention[:10]}]"] if info.retention else []),
        *(["[INCOMPLETE]"] if info.complete is False else []),
        *(["[DAMAGED]"] if info.damaged else []),
    ]
    return " ".join(flags) + (" " if flags else "")
