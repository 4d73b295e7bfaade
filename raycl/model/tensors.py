"""Tensors of a safetensors file in the memory that it was read into.

The library's own ``load`` copies every tensor while no other thread of the process can run: a service that takes a new
release would not answer for 0.1 s per 0.2 GB.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from raycl.storage.store import Store

_LENGTH = 8
"""Bytes of the number before the header, which is the header's length."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read(store: Store, path: str) -> Tensor:
    """The bytes (size,) of a file; FileNotFoundError where there is none.

    The memory is torch's own, which other threads need not wait for when it is given back.
    """

    def filled(file: Any) -> Tensor:
        found = torch.empty(file.size(), dtype=torch.uint8)
        return found[: file.readinto(found.numpy())]

    return store.read_with(path, filled)


def views(content: Tensor) -> dict[str, Tensor]:
    """The tensors, by name, of the bytes (size,) of a file; they share its memory, and keep it.

    ValueError for what is no safetensors file. The format is that of https://github.com/huggingface/safetensors#format
    """
    start = _LENGTH + int.from_bytes(_plain(content[:_LENGTH]), "little")
    if len(content) < max(start, _LENGTH):
        raise ValueError(f"{len(content)} bytes are too few for a header of {start - _LENGTH} bytes")
    try:
        header = json.loads(_plain(content[_LENGTH:start]))
        found = {name: _view(content[start:], **entry) for name, entry in header.items() if name != "__metadata__"}
    except (AttributeError, RecursionError, TypeError) as error:
        raise ValueError(f"the header is not that of a safetensors file: {error!r}") from error
    described = sum(tensor.nbytes for tensor in found.values())
    if described != len(content) - start:
        raise ValueError(f"tensors of {described} bytes are described, and {len(content) - start} bytes are there")
    return found


def _plain(content: Tensor) -> bytes:
    return content.numpy().tobytes()


def _view(data: Tensor, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> Tensor:
    if dtype not in _DTYPES:
        raise ValueError(f"{dtype} is none of {', '.join(_DTYPES)}")
    kind, (begin, end) = _DTYPES[dtype], data_offsets
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= len(data):
        raise ValueError(f"{shape} of {dtype} are not the bytes {begin} to {end} of {len(data)}")
    if end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{shape} of {dtype} are not {end - begin} bytes")
    found = data[begin:end]
    if found.storage_offset() % kind.itemsize:  # which the library never writes, and torch has no view of
        found = found.clone()
    return found.view(kind).reshape(shape)
