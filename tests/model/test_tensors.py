"""Tensors of a safetensors file without a copy: those of the library, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as st
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from raycl.model import tensors
from raycl.storage.store import Store

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8]
KINDS += [torch.int64, torch.int32, torch.int16, torch.int8]


def of_bytes(content: bytes) -> Tensor:
    return torch.tensor(list(content), dtype=torch.uint8)


def of_header(header: Any, data: bytes = b"") -> Tensor:
    plain = json.dumps(header).encode()
    return of_bytes(len(plain).to_bytes(8, "little") + plain + data)


def entry(**changed: Any) -> dict[str, Any]:
    return {"table": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changed}}


@given(
    shapes=some.lists(
        some.tuples(some.sampled_from(KINDS), some.lists(some.integers(0, 5), max_size=3)), min_size=1, max_size=9
    ),
    described=some.none() | some.dictionaries(some.text(max_size=5), some.text(max_size=5), max_size=2),
)
def test_what_the_library_saves_is_read_as_the_library_reads_it(
    shapes: list[tuple[torch.dtype, list[int]]], described: dict[str, str] | None
) -> None:
    saved: dict[str, Tensor] = {
        f"tensor {place}": torch.randint(0, 2, shape).to(kind) for place, (kind, shape) in enumerate(shapes)
    }
    content = st.save(saved, described)
    found, expected = tensors.views(of_bytes(content)), st.load(content)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_tensors_share_the_memory_of_the_file_and_keep_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("file", st.save({"table": torch.arange(6.0).reshape(2, 3)}))
    content = tensors.read(store, "file")
    found = tensors.views(content)["table"]
    content[-4:] = torch.tensor([7.0]).view(torch.uint8)
    del content
    assert found.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 7.0]]


def test_a_tensor_at_an_odd_place_is_read_too() -> None:
    header = {"one": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, **entry(data_offsets=[1, 25])}
    data = b"\1" + st.save({"table": torch.arange(6.0)})[-24:]
    assert tensors.views(of_header(header, data))["table"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    "content",
    [
        of_bytes(b""),
        of_bytes(b"short"),
        of_bytes((100).to_bytes(8, "little") + b"{}"),
        of_bytes((1 << 63).to_bytes(8, "little")),
        of_bytes((2).to_bytes(8, "little") + b"\xff\xff"),
        of_header([]),
        of_header({"table": 1}),
        of_header({"table": {"dtype": "F32"}}),
        of_header(entry(), b"0" * 23),
        of_header(entry(dtype="F7"), b"0" * 24),
        of_header(entry(shape=[2, 4]), b"0" * 24),
        of_header(entry(shape=[-2, -3]), b"0" * 24),
        of_header(entry(shape="23"), b"0" * 24),
        of_header(entry(data_offsets=[-24, 0]), b"0" * 24),
        of_header(entry(data_offsets=[24, 0]), b"0" * 24),
        of_header(entry(data_offsets=[0.0, 24]), b"0" * 24),
        of_header(entry(data_offsets=[0]), b"0" * 24),
        of_header(entry(other=1), b"0" * 24),
        of_header(entry(), b"0" * 25),
        of_header({**entry(), **{"again": entry()["table"]}}, b"0" * 24),
        of_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000),
    ],
)
def test_what_is_no_such_file_is_refused(content: Tensor) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tensors.views(content)
