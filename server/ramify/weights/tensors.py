"""What safetensors files hold, read from their headers, and whether every number in them is one.

A file is 8 bytes (the header's length, little-endian), a JSON header (name → dtype, shape, place) and the raw data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramify.weights.errors import CorruptRelease

__all__ = ["Tensor", "require_finite", "tensors_of"]

LARGEST_HEADER = 100 << 20
"""Bytes; what safetensors' own reader takes."""
CHUNK = 1 << 22
"""Numbers looked at in one go."""
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
    """Bytes into the file at which its data begins; `end` is where it ends."""
    end: int


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model directory by name. Raises `CorruptRelease` for files that are no whole safetensors."""
    found: dict[str, Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        for name, tensor in _header(file).items():
            if name in found:
                raise CorruptRelease(f"{folder} holds the tensor {name} twice")
            found[name] = tensor
    return found


def _header(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(LARGEST_HEADER, size - 8):
                raise CorruptRelease(f"{file} is no safetensors file, or only the beginning of one")
            header = json.loads(opened.read(length))
        tensors = {
            name: Tensor(
                str(entry["dtype"]),
                tuple(map(int, entry["shape"])),
                file,
                8 + length + int(entry["data_offsets"][0]),
                8 + length + int(entry["data_offsets"][1]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CorruptRelease(f"{file} is no safetensors file: its header cannot be read") from error
    for name, tensor in tensors.items():
        if not 8 + length <= tensor.start <= tensor.end <= size:
            raise CorruptRelease(f"{file} ends before its tensor {name} does")
    return tensors


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Raise `CorruptRelease` naming the first tensor that holds NaN or an infinity."""
    for name, tensor in tensors.items():
        if tensor.dtype in _EXPONENT and not _finite(tensor):
            raise CorruptRelease(f"{tensor.file}: the tensor {name} holds NaN or infinite numbers")


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
