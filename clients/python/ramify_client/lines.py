"""Lines out of bytes that come in pieces."""

from __future__ import annotations

from collections.abc import Iterator

from ramify_client.errors import InvalidAnswer

LONGEST_LINE = 256 << 20
"""Bytes; a tree of some thousand nodes is a few MiB."""


class Lines:
    """Feed it bytes, take the lines that they complete, without their line end (LF or CRLF).

    Of its own, since a text's `splitlines` (httpx's `iter_lines` too) also breaks at U+2028 and other characters that
    JSON strings may hold. A line that comes in many pieces is joined once.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._held = 0

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun that has not ended."""
        return self._held > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises `InvalidAnswer` at a line of more than `longest` bytes."""
        first, *others = chunk.split(b"\n")
        self._hold(first)
        for piece in others:
            line = b"".join(self._pieces)
            self._pieces, self._held = [], 0
            self._hold(piece)
            yield line.removesuffix(b"\r")

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
        if self._held > self._longest:
            raise InvalidAnswer(f"a line of the answer is longer than {self._longest} bytes")
