"""``/docs``: the OpenAPI description as one page for people. No script, one inline style that its own policy names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from mixer.http.problems import STATUS

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#1b6f7a}
@media (prefers-color-scheme:dark){:root{--accent:#6cc5d1}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1.5rem}
h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
details{border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0}
summary{padding:.6rem .8rem;cursor:pointer;overflow-wrap:anywhere}
details[open] summary{border-bottom:1px solid var(--line)}
details>div{padding:.2rem 1rem 1rem;overflow-x:auto}
code,pre{font:.9em/1.5 ui-monospace,monospace}
pre{background:var(--soft);padding:.8rem;border-radius:.4rem;overflow-x:auto}
.method{display:inline-block;min-width:4.5rem;font-weight:700;color:var(--accent)}
table{border-collapse:collapse}
td,th{overflow-wrap:anywhere;text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
a{color:var(--accent)}
"""

_hash = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
DOCS_CSP: Final = f"default-src 'none'; style-src 'sha256-{_hash}'; base-uri 'none'; frame-ancestors 'none'"


def render(document: Mapping[str, Any]) -> bytes:
    """The page for an OpenAPI document that ``mixer.http.openapi`` made."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Mosaique API</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Mosaique API {escape(document['info']['version'])}</h1>",
        "<p>For programs: <a href='/openapi.json'>openapi.json</a> (OpenAPI 3.1). "
        "A token goes into <code>Authorization: Bearer TOKEN</code>.</p>",
    ]
    for tag in document["tags"]:
        operations = [
            (path, method, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if tag["name"] in operation["tags"]
        ]
        if operations:
            parts.append(f"<h2>{escape(tag['description'])}</h2>")
            parts += [_operation(path, method, operation) for path, method, operation in operations]
    parts.append("<h2>Schemas</h2>")
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    parts.append(
        "<h2>Problems</h2><p>Every error body is RFC 9457 <code>application/problem+json</code>.</p>"
    )
    parts.append("<table><tr><th>Type</th><th>Status</th><th>Meaning</th></tr>")
    for error, (status, title) in STATUS.items():
        meaning = escape((error.__doc__ or title).splitlines()[0])
        parts.append(
            f"<tr id='problem-{error.code}'><td><code>{error.code}</code></td><td>{status}</td><td>{meaning}</td></tr>"
        )
    parts.append("</table></main></body></html>")
    return "".join(parts).encode()


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
        f"<td>{escape(p.get('description', ''))}</td></tr>"
        for p in operation["parameters"]
    )
    table = f"<table>{rows}</table>" if rows else ""
    body = ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body += f"<p>Body: <code>{escape(kind)}</code> {_reference(content['schema'])}</p>"
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))} "
        f"{' '.join('<code>' + escape(kind) + '</code>' for kind in answer.get('content', {}))}</td></tr>"
        for status, answer in operation["responses"].items()
        if "$ref" not in answer
    )
    errors = ", ".join(escape(s) for s, answer in operation["responses"].items() if "$ref" in answer)
    roles = f"<p>{escape(operation['description'])}</p>" if "description" in operation else "<p>Public.</p>"
    return (
        f"<details><summary><span class='method'>{escape(method.upper())}</span> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary><div>{roles}{table}{body}<table>{answers}</table>"
        f"{'<p>Errors: ' + errors + '</p>' if errors else ''}</div></details>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"<div><pre>{escape(_outline(schema))}</pre></div></details>"
    )


def _outline(schema: Mapping[str, Any]) -> str:
    """One line a property: name, whether it must be there, type, default."""
    lines = [str(schema["description"]), ""] if "description" in schema else []
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        default = f" = {field['default']!r}" if "default" in field else ""
        lines.append(f"{name}{'' if name in required else '?'}: {_type(field)}{default}")
    return "\n".join(lines) or _type(schema)


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in field:
        return " | ".join(_type(option) for option in field["anyOf"])
    if "enum" in field:
        return " | ".join(repr(value) for value in field["enum"])
    if "const" in field:
        return repr(field["const"])
    if field.get("type") == "array":
        return f"[{_type(field.get('items', {}))}]"
    kind = field.get("type", "any")
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _reference(schema: Mapping[str, Any]) -> str:
    if "$ref" not in schema:
        return ""
    name = escape(str(schema["$ref"]).rsplit("/", 1)[-1])
    return f"<a href='#schema-{name}'>{name}</a>"
