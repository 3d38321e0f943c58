"""``mosaique``: the command. Exit status 0, 1 (failed) or 2 (usage, which a wrong configuration is too)."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from mixer.errors import ConfigError, MosaiqueError
from mixer.version import version

if TYPE_CHECKING:  # what only one sub-command needs is imported by that one
    from mixer.settings import Settings

FAILED: Final = 1
USAGE: Final = 2

_Run = Callable[[argparse.Namespace], int]

PARTS: Final = (
    ("compose", "mixer.compose", "compose recorded tracks or any videos again, into one file"),
    ("probe", "mixer.probe", "join synthetic callers to a running server and report what they see and hear"),
    (
        "turn-config",
        "mixer.turn_config",
        "write the configuration of coturn or eturnal from this server's own",
    ),
    ("archive", "mixer.archive", "list, show, fetch and verify recordings"),
)
"""Sub-commands of other modules, each with ``add_arguments(parser)`` and ``run(args) -> int``. One that is not
installed is not offered, and none is imported unless it is asked for, so that the others start at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status."""
    # OpenBLAS starts a thread a core when numpy is imported, and lets it spin. Nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # pydantic looks through every installed package for plugins of its own (25 ms). We have none, and want none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(arguments)
    args = parser.parse_args(arguments)
    run: _Run = args.run
    try:
        return run(args)
    except ConfigError as error:
        print(f"mosaique: {error}", file=sys.stderr)
        return USAGE
    except MosaiqueError as error:
        print(f"mosaique: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough; nothing more may be written, also not at exit
        sys.stdout = None  # what the interpreter itself does without a console
        return FAILED
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line. ``argv`` tells which of the other modules' arguments are needed."""
    parser = argparse.ArgumentParser(
        prog="mosaique", description="Many streams in, one mixed stream out, recorded and archived in Europe."
    )
    parser.add_argument("--version", action="version", version=f"mosaique {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    configured = argparse.ArgumentParser(add_help=False)
    group = configured.add_argument_group("configuration")
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file (default: ./mosaique.toml if it is there)"
    )
    group.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="SECTION.KEY=VALUE",
        help="set one key; may be given several times",
    )  # fmt: skip

    serve = commands.add_parser(
        "serve", parents=[configured], help="run the server", description="Run the server."
    )
    serve.set_defaults(run=_serve)

    show = commands.add_parser(
        "config", parents=[configured], help="print the effective configuration",
        description="Print the effective configuration as TOML, secrets masked.",
    )  # fmt: skip
    show.set_defaults(run=_config)

    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    token = commands.add_parser(
        "token", parents=[configured], help="make a token for one person",
        description="Print a token (JWT) for one person in one room, signed with auth.secret.",
    )  # fmt: skip
    if chosen == "token":
        _add_token(token)

    for name, module_name, summary in PARTS:
        if _exists(module_name):
            part = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
            if name == chosen:
                module = importlib.import_module(module_name)
                module.add_arguments(part)
                part.set_defaults(run=module.run)
    return parser


def _exists(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:
        return False


def _add_token(token: argparse.ArgumentParser) -> None:
    from mixer.http.auth import DEFAULT_TTL_S, MAX_TTL_S
    from mixer.room import Role

    token.add_argument("--room", required=True, help="name of the room, or * for all")
    token.add_argument("--role", required=True, choices=get_args(Role))
    token.add_argument("--name", default="", help="name to show")
    token.add_argument("--sub", help="participant id (default: a new one)")
    token.add_argument(
        "--ttl", type=int, default=DEFAULT_TTL_S, metavar="SECONDS",
        help=f"lifetime, at most {MAX_TTL_S} (default: %(default)s)",
    )  # fmt: skip
    token.set_defaults(run=_token)


def _settings(args: argparse.Namespace) -> Settings:
    from mixer import config

    return config.load(file=args.config, assignments=args.assignments)


def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from mixer import log
    from mixer.kept_secrets import with_secrets
    from mixer.service import run

    settings = with_secrets(_settings(args))
    log.configure(level=settings.log.level, style=settings.log.format, secrets=settings.secret_texts())
    try:
        return asyncio.run(run(settings, lambda urls: _announce(settings, urls)))
    except OSError as error:
        print(f"mosaique serve: {error.strerror or error}", file=sys.stderr)
        return FAILED


def _announce(settings: Settings, urls: Sequence[str]) -> None:
    """What the person who started the server needs next. On standard output, which is not the log."""
    base = urls[0] if urls else f"http://{settings.http.host}:{settings.http.port}"
    print(
        f"""
Mosaique is running.

  Join page:   {base}/
  Admin page:  {base}/admin
  Admin token: {settings.admin_token}

Open {base}/r/demo in two tabs. No one there to talk to? Add four synthetic callers:

  .venv/bin/mosaique probe --url {base} --room demo --callers 4 --seconds 120
""",
        flush=True,
    )


def _config(args: argparse.Namespace) -> int:
    from mixer import config

    print(config.to_toml(_settings(args)), end="")
    return 0


def _token(args: argparse.Namespace) -> int:
    from mixer.http.auth import MAX_TTL_S, issue
    from mixer.http.rooms import new_subject
    from mixer.kept_secrets import with_secrets

    if not 1 <= args.ttl <= MAX_TTL_S:
        print(f"mosaique token: --ttl takes 1 to {MAX_TTL_S} seconds", file=sys.stderr)
        return USAGE
    settings = with_secrets(_settings(args))
    try:
        made = issue(
            settings.token_secret,
            sub=args.sub or new_subject(),
            name=args.name,
            role=args.role,
            room=args.room,
            ttl_s=args.ttl,
            now_s=time.time(),
        )
    except ValueError as error:
        print(f"mosaique token: {error}", file=sys.stderr)
        return USAGE
    print(made.token)
    return 0


if __name__ == "__main__":
    sys.exit(main())
