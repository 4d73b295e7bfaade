"""Malformed requests made from the service's own OpenAPI schema: values that fit, of which some are then spoilt."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

SENSIBLE = {
    "history": [101, "103", 999],
    "times": [1e9, None, -1e308],
    "context": {},
    "column": "kind",
    "op": "eq",
    "method": "mmr",
    "item_id": 101,
    "user_id": "ann",
    "k": 3,
}


def nested(depth: int) -> Any:
    """Lists within lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 10**30, -(10**400), 2**63, 1e308, 0.5, float("nan"), float("inf"),
    "", " ", "101", "é\u0000\u202e", "\ud800", "x" * 5_000, "2026-01-01", "'; drop table items; --", "{{7*7}}",
    "../../etc/passwd", "%00", "NaN", [], {}, [[]], {"": {}}, {"$ref": "#"}, [None] * 50, list(range(2_000)),
    {"op": "not", "of": {"op": "not"}}, {"kind": 1, "price": "x"}, nested(7), nested(100), nested(600),
]  # fmt: skip


@dataclass
class Request:
    """One request as bytes."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, bytes] = field(default_factory=dict)


class Maker:
    """Draws requests; the same seed draws the same."""

    def __init__(self, schema: dict[str, Any], seed: int) -> None:
        """``schema``: what ``/openapi.json`` answers."""
        self._schema, self._random = schema, random.Random(seed)
        self._routes = [
            (path, method, operation)
            for path, operations in schema["paths"].items()
            for method, operation in operations.items()
            if path.startswith("/v1")
        ]

    def request(self) -> Request:
        """A request to one of the routes; nearly all of them are spoilt somewhere."""
        draw = self._random
        path, method, operation = draw.choice(self._routes)
        made = Request(method.upper(), path, headers={"content-type": b"application/json"})
        body = operation.get("requestBody")
        if body is not None:
            value = self._value(body["content"]["application/json"]["schema"], 0)
            for _ in range(draw.choice([0, 1, 1, 2, 5])):
                value = self._spoilt(value)
            made.content = self._bytes(value)
        made.path = self._filled(path, operation)
        if draw.random() < 0.1:
            name = draw.choice(["content-type", "x-request-timeout-ms", "x-request-id", "accept", "content-length"])
            made.headers[name] = draw.choice([b"", b"text/plain", b"-1", b"\xff\xfe", b"application/xml", b"5" * 50])
        if draw.random() < 0.02:
            made.method = draw.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"])
        return made

    def _filled(self, path: str, operation: dict[str, Any]) -> str:
        params = []
        for one in operation.get("parameters", ()):
            value = self._plain(self._random.choice([101, *JUNK]) if self._random.random() < 0.7 else 3)
            if one["in"] == "path":
                path = path.replace("{" + one["name"] + "}", quote(value[:2_000], safe="", errors="replace") or "x")
            elif self._random.random() < 0.5:
                params.append(f"{one['name']}={quote(value[:2_000], errors='replace')}")
        for name in self._random.sample(["kind", "price", "stock", "%ff", "k", ""], self._random.randrange(3)):
            params.append(f"{name}={quote(self._plain(self._random.choice(JUNK))[:500], errors='replace')}")
        return f"{path}?{'&'.join(params)}" if params else path

    def _plain(self, value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    def _bytes(self, value: Any) -> bytes:
        draw = self._random
        content = json.dumps(value).encode()
        chance = draw.random()
        if chance < 0.03:
            return content[: draw.randrange(len(content) + 1)]
        if chance < 0.06 and content:
            place = draw.randrange(len(content))
            return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
        if chance < 0.07:
            return draw.choice([b"[" * 5_000, b'{"filter":' * 500, b"\x00" * 100, b" " * 3_000, b'{"k":1,"k":"x"}'])
        return content

    def _spoilt(self, value: Any) -> Any:
        """The value with one part of it replaced, left out or doubled."""
        draw = self._random
        if draw.random() < 0.25 or not isinstance(value, dict | list) or not value:
            return draw.choice(JUNK)
        if isinstance(value, list):
            place = draw.randrange(len(value))
            return [self._spoilt(one) if at == place else one for at, one in enumerate(value)]
        key = draw.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        chance = draw.random()
        if chance < 0.15:
            return rest
        if chance < 0.3:
            return {**rest, draw.choice(["\ud800", "x" * 500, "", str(draw.choice(JUNK))[:100]]): value[key]}
        return {**rest, key: self._spoilt(value[key])}

    def _value(self, schema: dict[str, Any], depth: int) -> Any:
        """A value of a schema, more or less."""
        draw = self._random
        if "$ref" in schema:
            return self._value(self._schema["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth + 1)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._value(draw.choice(schema[name]), depth + 1)
        if "const" in schema or "enum" in schema:
            return schema.get("const", draw.choice(schema.get("enum", [None])))
        kind = schema.get("type")
        if kind == "object":
            if "properties" not in schema:
                return {draw.choice(["kind", "age", "country", "new"]): draw.choice(["tea", 3, {}]) for _ in range(2)}
            needed = schema.get("required", ())
            return {
                name: SENSIBLE[name]
                if name in SENSIBLE and draw.random() < 0.5 and "const" not in one
                else self._value(one, depth + 1)
                for name, one in schema["properties"].items()
                if name in needed or (depth < 9 and draw.random() < 0.4)
            }
        if kind == "array":
            return [
                self._value(schema.get("items", {}), depth + 1) for _ in range(draw.randrange(3) if depth < 9 else 0)
            ]
        simple = {"integer": 3, "number": 0.5, "boolean": True, "string": "tea", "null": None}
        return simple.get(str(kind), "tea")
