"""Logging: structlog for our own lines, the standard library's for those of others, one way out for both.

Every line passes ``Redactor`` last, when it is one flat set of texts (exceptions included), so that no token,
PIN, key or password reaches the log whoever wrote it and wherever it stood: under a telling key, in a URL, in a
header, in a traceback.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

REDACTED: Final = "[redacted]"

_TELLING_KEY = re.compile(
    r"(^|[_\-.])(pin|pins|token|tokens|secret|secrets|password|passwd|credential|credentials|authorization|cookie)$",
    re.IGNORECASE,
)

_PATTERNS: Final = (
    # JWS compact serialisation (RFC 7515 section 7.1): a base64url JSON object, so it starts with eyJ
    re.compile(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"),
    # an Authorization header's credentials, wherever they are quoted
    re.compile(r"(?<=\bBearer )[^\s\"',]+|(?<=\bBasic )[^\s\"',]+", re.IGNORECASE),
    # key=value and "key": "value" of query strings, forms, JSON, reprs and tracebacks
    re.compile(
        r"(?:(?<=pin)|(?<=token)|(?<=secret)|(?<=password)|(?<=credential)|(?<=authorization))"
        r"(?P<mark>[\"']?\s*[=:]\s*(?:SecretStr\()?[\"']?)(?!\[redacted\])(?:(?:Bearer|Basic) )?[^\s\"',;&)}\]]+",
        re.IGNORECASE,
    ),
    # ice-pwd of an SDP is a live password until the session ends (RFC 8839 section 5.4)
    re.compile(r"(?<=a=ice-pwd:)\S+"),
)


class Redactor:
    """A structlog processor. ``literals``: secrets known by value, which are cut out of any text."""

    def __init__(self, literals: Iterable[str] = ()) -> None:
        # Longest first, so that a secret that contains another is cut whole. Very short ones would cut words.
        known = sorted({text for text in literals if len(text) >= 6}, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key in event:
            event[key] = REDACTED if _TELLING_KEY.search(str(key)) else self.clean(event[key])
        return event

    def clean(self, value: Any) -> Any:
        """``value`` without secrets: texts cleaned, containers walked, anything else cleaned as its ``repr``."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self._clean_text(value)
        if isinstance(value, Mapping):
            return {
                key: REDACTED if _TELLING_KEY.search(str(key)) else self.clean(inner)
                for key, inner in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.clean(item) for item in value]
        return self._clean_text(repr(value))

    def _clean_text(self, text: str) -> str:
        if self._literals is not None:
            text = self._literals.sub(REDACTED, text)
        for pattern in _PATTERNS:
            text = pattern.sub(_keep_mark, text)
        return text


def _keep_mark(match: re.Match[str]) -> str:
    return (match.groupdict().get("mark") or "") + REDACTED


def configure(
    *,
    level: str = "info",
    style: str = "auto",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all logging of this process to ``stream`` (standard error), redacted.

    ``style``: ``json`` (one object a line), ``console``, or ``auto``: console when the stream is a terminal.
    Called once by each process; calling it again replaces what was.
    """
    out = stream or sys.stderr
    as_json = style == "json" or (style == "auto" and not out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                Redactor(secrets),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("aioice", "aiortc", "asyncio"):
        # aioice tells every candidate pair at INFO: addresses of callers that nobody needs in a log
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
