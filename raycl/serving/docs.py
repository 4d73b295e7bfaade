"""The page at ``/docs``: every route, parameter and field of the OpenAPI schema, with a call of each to copy.

It is one file without a script, and loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raycl.pages import html

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

Schema = Mapping[str, Any]

EXAMPLES: Mapping[str, str] = {
    "POST /v1/retrieve": json.dumps({"history": [101, 103], "k": 3, "explain": True}),
    "GET /v1/items/{item_id}/similar": "/v1/items/101/similar?k=3",
    "POST /v1/events": json.dumps({"events": [{"user_id": "ann", "item_id": 101}]}),
}
"""By method and path: the body that is posted, or where there is none the path that is asked for."""

_STYLE = """
h2 code { font-size: 1.1rem; } h2 code:first-child { color: var(--first); }
th, td { text-align: left; white-space: normal; vertical-align: top; overflow-wrap: anywhere; }
.table { max-height: none; }
a { color: var(--first); }
pre { overflow: auto; padding: .75rem 1rem; border: 1px solid var(--line); border-radius: 6px; background: var(--page);
  font-size: 13.5px; }
:focus-visible { outline: 3px solid var(--second); outline-offset: 2px; }
"""
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "items at least",
    "maxItems": "items at most",
    "pattern": "like",
}


def page(openapi: Schema) -> str:
    """The whole page about a service with this schema."""
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = openapi.get("components", {}).get("schemas", {})
    listed = "".join(f'<li><a href="#{_anchor(name)}">{_code(name)}</a></li>' for name, _ in operations)
    about = (
        f"<header><h1>{html.text(openapi['info']['title'])}</h1></header>"
        f"<p>{_said(openapi['info'])} For programs: <a href='openapi.json'>openapi.json</a>. In the calls below"
        f" {_code('URL')} is where this service is, for example {_code('http://127.0.0.1:8000')}, and"
        f" {_code('TOKEN')} one of its tokens; a service without tokens needs no such header.</p>"
        f"<nav aria-label='Routes'><ul>{listed}</ul></nav>"
    )
    parts = [about, *(_operation(name, operation) for name, operation in operations)]
    return html.page("raycl: routes and fields", [*parts, *(_schema(*one) for one in schemas.items())], _STYLE)


def _operation(name: str, operation: Schema) -> str:
    method, _, path = name.partition(" ")
    parts = [f"<p>{_said(operation)}</p>"]
    given = [
        (_code(one["name"]), f"{one['in']}, {_kind(one['schema'])}", "yes" if one.get("required") else "no", _said(one))
        for one in operation.get("parameters", ())
    ]
    if given:
        parts.append("<h3>Parameters</h3>" + _table(("Name", "Type", "Required", "Meaning"), given))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        parts.append(f"<h3>Body</h3><p>{_kind(content['schema'])}</p>")
    answers = [
        (_code(status), ", ".join(_kind(one["schema"]) for one in told.get("content", {}).values()), _said(told))
        for status, told in operation["responses"].items()
    ]
    parts.append("<h3>Answers</h3>" + _table(("Status", "Body", "Meaning"), answers))
    parts.append(f"<h3>A call</h3><pre>{html.lines(call(name, closed='security' in operation))}</pre>")
    title = f"{_code(method)} {_code(path)}"
    return f'<section id="{_anchor(name)}"><h2>{title}</h2>{"".join(parts)}</section>'


def call(name: str, *, closed: bool) -> str:
    """A call of this method and path for a shell; ``closed`` where it needs a token."""
    method, _, path = name.partition(" ")
    example = EXAMPLES.get(name)
    found = f'curl "$URL{path if method == "POST" or example is None else example}"'
    if closed:
        found += ' \\\n  -H "authorization: Bearer $TOKEN"'
    if method == "POST":
        found += f" \\\n  -H 'content-type: application/json' \\\n  -d '{example}'"
    return found


def _schema(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    fields = [
        (_code(field), _kind(one), "yes" if field in required else _default(one), _said(one))
        for field, one in schema.get("properties", {}).items()
    ]
    content = f"<p>{_said(schema)}</p>"
    content += _table(("Field", "Type", "Required", "Meaning"), fields) if fields else f"<p>{_kind(schema)}</p>"
    return f'<section id="{_anchor(name)}"><h2>{_code(name)}</h2>{content}</section>'


def _default(schema: Schema) -> str:
    return f"no, {_code(json.dumps(schema['default']))}" if "default" in schema else "no"


def _kind(schema: Schema) -> str:
    """What a value may be, in words, with links to the schemas that it names."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{_code(name)}</a>'
    for how in ("anyOf", "oneOf", "allOf"):
        if how in schema:
            return " or ".join(dict.fromkeys(map(_kind, schema[how])))
    if "const" in schema or "enum" in schema:
        return " or ".join(_code(json.dumps(one)) for one in schema.get("enum", [schema.get("const")]))
    kind = html.text(str(schema.get("type", "any value")))
    if kind == "array":
        kind = f"list of {_kind(schema['items'])}" if schema.get("items") else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_kind(schema['additionalProperties'])}"
    limits = [f"{words} {_code(str(schema[name]))}" for name, words in _LIMITS.items() if name in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def _said(part: Schema) -> str:
    """The description of a part of the schema, on one line."""
    words = html.text(" ".join(str(part.get("description", "")).split()))
    return re.sub(r"``(.+?)``|`(.+?)`", lambda found: f"<code>{found[1] or found[2]}</code>", words)


def _code(words: str) -> str:
    return f"<code>{html.text(words)}</code>"


def _anchor(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of markup, whose first column names the row."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
