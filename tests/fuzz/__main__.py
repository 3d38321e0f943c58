"""``python -m tests.fuzz [--seconds S] [TARGET …]``: each target under atheris, in a process of its own.

Exit status 0: nothing was found. A finding is printed by libFuzzer; its input is kept in ``var/fuzz``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT = Path("var/fuzz")
ALONE = "--alone"  # inner: this process fuzzes one target


def main() -> int:
    """Run the targets one after another; how many found something."""
    if ALONE in sys.argv:
        _fuzz(sys.argv[sys.argv.index(ALONE) + 1])
    from tests.fuzz.targets import TARGETS, seeds

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="a target (default: %(default)s)")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)"
    )
    wanted = parser.parse_args()
    if unknown := set(wanted.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    KEPT.mkdir(parents=True, exist_ok=True)
    found = 0
    for name in wanted.targets or TARGETS:
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(seeds(name)):
                (Path(corpus) / f"seed-{number}").write_bytes(seed)
            started = time.monotonic()
            command = [
                sys.executable, "-m", "tests.fuzz", f"-max_total_time={wanted.seconds}", "-max_len=4096",
                "-timeout=10", "-rss_limit_mb=1024", "-verbosity=1", f"-artifact_prefix={KEPT}/{name}-", corpus,
                ALONE, name,
            ]  # fmt: skip
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        rows = done.stdout.splitlines()
        last = next((row for row in reversed(rows) if row.startswith(("#", "Done"))), "")
        print(
            f"{name:10} {'ok' if done.returncode == 0 else 'FOUND'}  {time.monotonic() - started:.0f} s  {last}"
        )
        if done.returncode:
            found += 1
            print("\n".join(rows[-40:]))
    return min(found, 1)


def _fuzz(name: str) -> None:
    """Never returns: libFuzzer exits the process."""
    import atheris

    with atheris.instrument_imports(include=["mixer", "recording"]):
        from tests.fuzz.targets import TARGETS
    arguments = sys.argv[: sys.argv.index(ALONE)]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
