"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """As ``pyproject.toml`` says it; ``0+uninstalled`` when run from a tree that was never installed."""
    try:
        return installed("mosaique")
    except PackageNotFoundError:
        return "0+uninstalled"
