"""Lines that are no KATCP, before the protocol version is known: another protocol answers on this port, perhaps."""

from __future__ import annotations

from typing import Optional, Union

from ..errors import as_text, quoted
from ..wire import codec
from ..wire.codec import RawMessage


class ForeignLines:
    """Counts the lines that are no KATCP, and keeps the first of them."""

    __slots__ = ("_tail", "count", "first")

    def __init__(self) -> None:
        self._tail = b""
        self.count = 0
        self.first: Optional[bytes] = None

    def note(self, data: bytes, messages: list[Union[RawMessage, ValueError]]) -> None:
        """Look at a chunk, and at what the parser has made of it."""
        *lines, tail = data.replace(b"\r", b"\n").split(b"\n")
        count = sum(type(message) is not RawMessage for message in messages)
        if count and self.first is None:
            lines[0] = self._tail + lines[0]
            self.first = next((line for line in lines if _is_foreign(line)), None)
        self.count += count
        self._tail = tail if lines else self._tail + tail

    def __str__(self) -> str:
        """For the text of an error; empty if there are none."""
        if self.first is None:
            return ""
        lines = "1 line is no KATCP" if self.count == 1 else f"{self.count} lines are no KATCP"
        return f"; {lines}, the first is {quoted(as_text(self.first))}"


def _is_foreign(line: bytes) -> bool:
    (message,) = codec.Parser(len(line) + 1).append(line + b"\n") or (None,)
    return isinstance(message, ValueError)
