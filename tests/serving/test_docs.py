"""The page of routes and fields: all of the schema, calls that work, and nothing from elsewhere."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from raycl.serving import docs
from tests.serving import services
from tests.serving.services import Web

XHTML = "{http://www.w3.org/1999/xhtml}"


@pytest.fixture
def web(tmp_path: Path) -> Any:
    running = services.service(tmp_path)
    services.publish(running, tmp_path)
    with Web(running) as opened:
        yield opened


def written(web: Web) -> ET.Element:
    return ET.fromstring(web.get("/docs").text.partition("\n")[2])


def texts(page: ET.Element, tag: str) -> list[str]:
    return ["".join(one.itertext()) for one in page.iter(XHTML + tag)]


def test_the_page_names_every_route_parameter_and_field_with_what_is_said_of_it(web: Web) -> None:
    schema, page = web.get("/openapi.json").json(), written(web)
    titles, cells = texts(page, "h2"), texts(page, "th")
    said = re.sub(r"\s+", " ", "".join(page.itertext()))
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in titles
            assert {one["name"] for one in operation.get("parameters", ())} <= {*cells}
            assert set(operation["responses"]) <= {*cells}
    for name, one in schema["components"]["schemas"].items():
        assert name in titles
        assert set(one.get("properties", ())) <= {*cells}
        for field in one.get("properties", {}).values():
            assert " ".join(field.get("description", "").replace("`", "").split()) in said


def test_the_page_loads_nothing_and_its_links_lead_somewhere(web: Web) -> None:
    page = written(web)
    tags = {one.tag.removeprefix(XHTML) for one in page.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"@import|url\(", web.get("/docs").text)
    anchors = [str(one.get("id")) for one in page.iter() if one.get("id")]
    assert len(set(anchors)) == len(anchors)
    links = {str(one.get("href")) for one in page.iter(XHTML + "a")}
    assert links - {f"#{one}" for one in anchors} == {"openapi.json"}
    answer = web.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")


def test_each_call_of_the_page_is_answered(web: Web) -> None:
    calls = texts(written(web), "pre")
    assert len(calls) == len(web.get("/openapi.json").json()["paths"])
    for one in calls:
        curl, url, *options = shlex.split(one.replace("\\\n", "").replace("$URL", "").replace("$TOKEN", "secret"))
        given = dict(zip(options[1::2], options[::2], strict=True))
        headers = dict(value.split(": ") for value, name in given.items() if name == "-H")
        bodies = [value for value, name in given.items() if name == "-d"]
        assert curl == "curl"
        answer = (
            web.request("POST", url, content=bodies[0], headers=headers) if bodies else web.get(url, headers=headers)
        )
        assert answer.status_code == 200, (one, answer.text)
        assert ("authorization" in headers) == url.startswith("/v1/")


def test_words_of_a_schema_are_no_markup() -> None:
    hostile = {"description": "<script>``a<b``</script>", "type": "<i>", "default": "<b>", "pattern": "<p>"}
    page = docs.page(
        {
            "info": {"title": "<h1>"},
            "paths": {"/<x>": {"get": {"responses": {"2<0": {}}, "description": "&"}}},
            "components": {"schemas": {"<S>": {"properties": {"<f>": hostile}}}},
        }
    )
    found = ET.fromstring(page.partition("\n")[2])
    assert not {one.tag.removeprefix(XHTML) for one in found.iter()} & {"script", "i", "b", "x", "f"}
    assert "<script>a<b</script>" in "".join(found.itertext())
