"""Request bodies: bounded reading, strict JSON, and answers as JSON.

``parse_json`` reads what strangers send. It raises ``BadRequest`` (not JSON) or ``InvalidBody`` (JSON that no field
may hold) and nothing else, whatever the bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final, NoReturn, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from mixer.errors import BadRequest, InvalidBody

MAX_JSON_BYTES: Final = 256 * 1024  # contract section 3
MAX_SDP_BYTES: Final = 64 * 1024  # contract section 3
MAX_DEPTH: Final = 32  # no body of ours nests deeper than 5
READ_TIMEOUT_S: Final = (
    20.0  # 64 KiB over the slowest modem a caller has; longer is a stalled or hostile client
)

M = TypeVar("M", bound=BaseModel)


async def read_limited(request: web.Request, limit: int) -> bytes:
    """The body, refused with 413 as soon as it is known to be longer than ``limit`` bytes, 408 when it stalls."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit, request.content_length)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"The body did not arrive within {READ_TIMEOUT_S:.0f} s.") from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise BadRequest("the body cannot be decoded: it is cut, or not in its Content-Encoding") from None
    return bytes(body)


def _too_large(limit: int, actual: int) -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(
        max_size=limit, actual_size=actual, text=f"This body takes at most {limit} bytes."
    )


async def read_json(request: web.Request, *, empty: bool = False) -> object:
    """The decoded JSON body. ``empty``: a missing body counts as ``{}``."""
    raw = await read_limited(request, MAX_JSON_BYTES)
    if empty and not raw.strip():
        return {}
    return parse_json(raw)


async def read_model(request: web.Request, model: type[M], *, empty: bool = False) -> M:
    """The body as ``model``. Raises ``BadRequest`` when it is not JSON, ``InvalidBody`` when fields are wrong."""
    return validate(model, await read_json(request, empty=empty))


async def read_text(request: web.Request, limit: int) -> str:
    """The body as UTF-8 text without NUL. Raises ``BadRequest``."""
    try:
        text = (await read_limited(request, limit)).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    if "\x00" in text:
        raise BadRequest("the body holds a NUL")
    return text


def validate(model: type[M], data: object) -> M:
    """``data`` as ``model``. Raises ``InvalidBody``; what was sent is never repeated, since it may be a PIN."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = [
            {"loc": list(item["loc"]), "msg": item["msg"].removeprefix("Value error, ")}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidBody(f"the body has {len(errors)} wrong field(s)", errors) from None


def validate_query(request: web.Request, model: type[M]) -> M:
    """The query as ``model``; empty parameters count as none. Raises ``InvalidBody``."""
    try:
        return validate(model, {k: v for k, v in request.query.items() if v != "" and k != "access_token"})
    except InvalidBody as error:
        errors = [{"loc": ["query", *item["loc"]], "msg": item["msg"]} for item in error.errors]
        raise InvalidBody(f"the query has {len(errors)} wrong parameter(s)", errors) from None


def parse_json(raw: bytes) -> object:
    """Strict JSON (RFC 8259): UTF-8, no duplicate names, no NaN, finite numbers, bounded depth, no NUL in texts."""
    try:
        data = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest(f"the body nests deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # also an integer of more than 4300 digits
        place = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise BadRequest(f"the body is not JSON{place}") from None
    _check_texts(data)
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _check_texts(data: object) -> None:
    """Refuse what JSON can spell and no text of ours can hold: NUL and lone surrogates. Without recursion."""
    errors: list[dict[str, Any]] = []
    pending: list[tuple[tuple[str | int, ...], object]] = [((), data)]
    while pending:
        path, value = pending.pop()
        if len(path) > MAX_DEPTH:
            raise BadRequest(f"the body nests deeper than {MAX_DEPTH} levels")
        if isinstance(value, str) and not _is_text(value):
            errors.append({"loc": list(path), "msg": "a text may not hold NUL or half a surrogate pair"})
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not _is_text(key):
                    errors.append(
                        {"loc": list(path), "msg": "a name may not hold NUL or half a surrogate pair"}
                    )
                else:
                    pending.append(((*path, key), inner))
        elif isinstance(value, list):
            pending.extend(((*path, index), inner) for index, inner in enumerate(value))
    if errors:
        raise InvalidBody(f"the body has {len(errors)} wrong field(s)", errors)


def _is_text(value: str) -> bool:
    return "\x00" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def json_response(data: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``data`` as compact UTF-8 JSON."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def no_content() -> web.Response:
    """204."""
    return web.Response(status=204)
