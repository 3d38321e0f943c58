"""The configuration: one frozen tree, read once at start.

    defaults  <  mosaique.toml (--config)  <  MOSAIQUE_<SECTION>__<KEY>  <  --set section.key=value

``load`` merges the four into ``mixer.settings``, which says what each key takes. Whatever is wrong raises one
``ConfigError`` that names every wrong key, where it came from, and what it takes.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from mixer.errors import ConfigError
from mixer.settings import Settings

ENV_PREFIX: Final = "MOSAIQUE_"
DEFAULT_FILE: Final = "mosaique.toml"

Origins = dict[tuple[str, ...], str]


def load(
    *, file: Path | None = None, environ: Mapping[str, str] | None = None, assignments: Sequence[str] = ()
) -> Settings:
    """The effective tree. ``file``: None reads ``mosaique.toml`` of the working directory if there is one.
    ``assignments``: the ``section.key=value`` of the command line. Raises ``ConfigError``."""
    layers: list[tuple[tuple[str, ...], Any, str]] = []
    layers += _from_file(file)
    layers += _from_environment(os.environ if environ is None else environ)
    layers += _from_assignments(assignments)
    tree: dict[str, Any] = {}
    origins: Origins = {}
    for path, value, origin in layers:
        _put(tree, path, value, origin)
        origins[path] = origin
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def _from_file(file: Path | None) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    path = file or Path(DEFAULT_FILE)
    if file is None and not path.exists():
        return
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config takes a TOML file; {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for key, value in tree.items():
        if isinstance(value, dict):
            for inner, leaf in value.items():
                yield (key, inner), leaf, str(path)
        else:
            yield (key,), value, str(path)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            path = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            yield path, environ[name], f"environment {name}"


def _from_assignments(assignments: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError("--set takes section.key=value, like --set http.port=8081")
        yield tuple(key.strip().split(".")), value, f"--set {key.strip()}"


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any, origin: str) -> None:
    """Set one leaf. A path that the tree cannot hold is as unknown as a name that it does not have."""
    node = tree
    for part in path[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: unknown key ({origin})")
        node = inner
    if isinstance(node.get(path[-1]), dict) or (
        len(path) == 1 and path[0] in _sections() and not isinstance(value, dict)
    ):
        raise ConfigError(f"{path[-1]}: is a section, its keys are {_known(path[-1])} ({origin})")
    node[path[-1]] = value


def _sections() -> dict[str, type[BaseModel]]:
    fields = Settings.model_fields
    return {
        name: field.annotation
        for name, field in fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _known(section: str | None) -> str:
    model = _sections().get(section, Settings) if section else Settings
    return ", ".join(sorted(model.model_fields))


def _explain(error: ValidationError, origins: Origins) -> str:
    """One line a wrong key: the key, what it takes, where the value came from. Never the value: it may be a secret."""
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(str(part) for part in item["loc"])
        if path[-1].startswith("tls_") and path not in origins and path[0] != "http":
            continue  # inherited from http, which says so itself
        origin = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), None)
        if origin is None:  # a rule of a whole section: say where its keys came from
            origin = (
                ", ".join(sorted({o for p, o in origins.items() if p[: len(path)] == path})) or "defaults"
            )
        if item["type"] == "extra_forbidden":
            section = path[0] if len(path) > 1 else None
            message = f"unknown key; {section or 'the top level'} has {_known(section)}"
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
        lines.append(f"{'.'.join(path)}: {message} ({origin})")
    return "\n".join(lines)


# --- printing ----------------------------------------------------------------------------------------------


def to_toml(settings: Settings) -> str:
    """The effective tree as TOML with secrets masked. What is not set is a comment, since TOML has no null."""
    tree = settings.model_dump(mode="json")
    tree["archive"] |= _stores(settings)
    lines = [_toml_line(key, value) for key, value in tree.items() if not isinstance(value, dict)]
    for name, section in tree.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(_toml_line(key, value) for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _stores(settings: Settings) -> dict[str, str]:
    """Endpoints and regions that follow from a provider's name: who is meant is what an operator looks up here."""
    if not settings.archive.url:
        return {}
    places = settings.archive.places()
    found: dict[str, str] = {}
    for which, place in (("", places.first), ("second_", places.second)):
        if place is not None and not place.folder:
            found |= {f"{which}endpoint": place.endpoint, f"{which}region": place.region}
    return found


def _toml_line(key: str, value: Any) -> str:
    if value is None:
        return f"# {key} is not set"
    return f"{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value).replace("\x7f", "\\u007f")
