"""Read the headers of safetensors files, and check that every number in the files is finite.

A file is 8 bytes (the header's length, little-endian), a JSON header (name → dtype, shape, place) and the raw data,
which the tensors fill from its first byte to its last, without gaps. Several files have an index beside them, which
says in which file each tensor is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramify.weights.manifest import WeightsError

INDEX = "model.safetensors.index.json"

LARGEST_HEADER = 100 << 20
"""Bytes; what safetensors' own reader takes."""
CHUNK = 1 << 22
"""Numbers looked at in one go."""
_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "C64": 64,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
}
"""Bits of one number, by the names that safetensors gives to types."""
_EXPONENT = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""The type to read a float's bits as, and its exponent's bits: all of them set in NaN and infinities alone."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    """By safetensors' names: F32, BF16, ..."""
    shape: tuple[int, ...]
    file: Path
    start: int
    """Bytes into the file at which its data begins; `end` is the end of it."""
    end: int


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model directory by name. Raises `WeightsError` for files that are no whole safetensors."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        for name, tensor in tensors_in(file).items():
            if name in tensors:
                raise WeightsError(f"{folder} holds the tensor {name} twice")
            tensors[name] = tensor
    return tensors


def json_object(content: bytes, what: object) -> dict[str, Any]:
    """The JSON object that a file holds. Raises `WeightsError`: another value, a key given twice, too deep."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a key is given twice")
        return content

    try:
        value = json.loads(content, object_pairs_hook=once)
    except RecursionError:
        raise WeightsError(f"{what} cannot be read: its JSON is nested too deep") from None
    except ValueError as error:
        raise WeightsError(f"{what} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{what} cannot be read: it holds no JSON object")
    return value


def require_index(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise `WeightsError` if a model directory has an index that contradicts its files."""
    path = Path(folder) / INDEX
    if not path.is_file():
        return
    weight_map = json_object(path.read_bytes(), path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(f"{path} has no weight_map")
    held = {name: tensor.file.name for name, tensor in tensors.items()}
    for name in sorted(weight_map.keys() | held.keys()):
        if weight_map.get(name) != held.get(name):
            raise WeightsError(
                f"{path}: the tensor {name[:100]} is in {held.get(name, 'no file')}; "
                f"weight_map says {str(weight_map.get(name, 'no file'))[:100]}"
            )


def tensors_in(file: Path) -> dict[str, Tensor]:
    """Every tensor of one file by name. Raises `WeightsError` for a file that is no whole safetensors."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(LARGEST_HEADER, size - 8):
            raise WeightsError(f"{file} is not a safetensors file, or only the beginning of one")
        header = json_object(opened.read(length), f"the header of {file}")
    header.pop("__metadata__", None)
    tensors = {name: _tensor(file, 8 + length, name, entry) for name, entry in header.items()}
    at = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.end > size:
            raise WeightsError(f"{file} ends before its tensor {name} does")
        if tensor.start != at:
            raise WeightsError(
                f"{file}: the tensor {name} begins at byte {tensor.start}, not at {at}, the end of the one before it"
            )
        at = tensor.end
    if at != size:
        raise WeightsError(f"{file} has {size - at} bytes that belong to no tensor")
    return tensors


def _tensor(file: Path, data: int, name: str, entry: Any) -> Tensor:
    """One entry of a header. data: bytes into the file at which the tensors begin."""
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        counts = (*shape, start, end)
        if not all(type(count) is int and count >= 0 for count in counts) or dtype not in _BITS:
            raise ValueError("not the type, shape and place of a tensor")
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file}: its header says nothing that can be read of {name[:100]}") from error
    if (end - start) * 8 != math.prod(shape) * _BITS[dtype]:
        raise WeightsError(
            f"{file}: the tensor {name[:100]} of shape {shape} and type {dtype} cannot have {end - start} bytes"
        )
    return Tensor(dtype, shape, file, data + start, data + end)


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Raise `WeightsError` naming the first tensor that holds NaN or an infinity."""
    for name, tensor in tensors.items():
        if tensor.dtype in _EXPONENT and not _finite(tensor):
            raise WeightsError(f"{tensor.file}: the tensor {name} holds NaN or infinite numbers")


def _finite(tensor: Tensor) -> bool:
    kind, mask = _EXPONENT[tensor.dtype]
    count = (tensor.end - tensor.start) // np.dtype(kind).itemsize
    if not count:
        return True
    # Unaligned data is legal in a safetensors file, and a mapping of bytes takes any offset.
    raw: NDArray[np.uint8] = np.memmap(
        tensor.file, np.uint8, "r", tensor.start, shape=(tensor.end - tensor.start,)
    )
    step = CHUNK * np.dtype(kind).itemsize
    for at in range(0, len(raw), step):
        bits = raw[at : at + step].tobytes()
        if np.any((np.frombuffer(bits, kind) & kind(mask)) == kind(mask)):
            return False
    return True
