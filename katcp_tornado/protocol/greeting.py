"""The greeting: which protocol version the device speaks, from the first lines that it sends [section 4.2].

The whole machine is the table `GREETING`: from each stage, the lines that count and the stage they lead to; every
other line is ignored. The rules:

- ``#version-connect katcp-protocol`` decides, wherever it stands in the banner; the first one counts.
- A v4 device sends ``#version`` and ``#build-state``, in either order, instead. Both decide before the next message
  that is no part of a greeting, or at the end of the chunk, so that a protocol line right behind them still counts.
  One of them decides when nothing of the protocol was received for a while: the owner of the session says so.
- A protocol line corrects what was assumed, or taken from a v4 greeting, before it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Optional

from ..errors import ProtocolError
from ..wire.version import V4, ProtocolFlags

#: The informs that are part of a greeting.
GREETING_NAMES = frozenset([b"version-connect", b"version", b"build-state"])


class Stage(enum.Enum):
    """Stage of the greeting."""

    #: Nothing that counts.
    NOTHING = "nothing"
    #: Nothing that counts; the user has said which version to assume.
    ASSUMED = "assumed"
    #: One line of a v4 greeting.
    HALF_V4 = "half of v4"
    #: One line of a v4 greeting, where a version is assumed: it stays in force.
    ASSUMED_HALF_V4 = "assumed, half of v4"
    #: Both lines of a v4 greeting.
    V4 = "v4"
    #: The protocol line: the version is decided for good.
    ANNOUNCED = "announced"

    __hash__ = object.__hash__


class Line(enum.Enum):
    """Lines that move the greeting on."""

    PROTOCOL = "#version-connect katcp-protocol"
    FIRST_V4 = "#version or #build-state"
    SECOND_V4 = "the other of the two"
    PATIENCE = "1 s without the other"

    __hash__ = object.__hash__


_ANY = {Line.PROTOCOL: Stage.ANNOUNCED}

#: From each stage, the stages that may follow, by what leads there.
GREETING: Mapping[Stage, Mapping[Line, Stage]] = {
    Stage.NOTHING: {**_ANY, Line.FIRST_V4: Stage.HALF_V4},
    Stage.ASSUMED: {**_ANY, Line.FIRST_V4: Stage.ASSUMED_HALF_V4},
    Stage.HALF_V4: {**_ANY, Line.SECOND_V4: Stage.V4, Line.PATIENCE: Stage.V4},
    Stage.ASSUMED_HALF_V4: {**_ANY, Line.SECOND_V4: Stage.V4},
    Stage.V4: _ANY,
    Stage.ANNOUNCED: {},
}


class Greeting:
    """The greeting of one conversation. Every method that takes a line says whether it counted."""

    __slots__ = ("_first", "stage")

    def __init__(self) -> None:
        self.stage = Stage.NOTHING
        self._first: Optional[bytes] = None  # the name of the v4 line that came first

    def assume(self) -> None:
        """The user has said which version to assume."""
        self.stage = Stage.ASSUMED

    @property
    def is_assumed(self) -> bool:
        """True while the version in force is only assumed."""
        return self.stage in (Stage.ASSUMED, Stage.ASSUMED_HALF_V4)

    def protocol_line(self, words: Sequence[str]) -> Optional[ProtocolFlags]:
        """Takes the words after ``katcp-protocol``. Returns what they announce, None if they do not count.

        Raises `.ProtocolError` for a version that the library does not speak, or that cannot be read.
        """
        if not self._move(Line.PROTOCOL):
            return None
        if not words:
            raise ProtocolError("the device names no protocol version")
        return ProtocolFlags.parse(words[0])

    def v4_line(self, name: bytes) -> bool:
        """Takes a ``#version`` or ``#build-state``."""
        if self._first is None:
            self._first = name
            return self._move(Line.FIRST_V4)
        return name != self._first and self._move(Line.SECOND_V4)

    def out_of_patience(self) -> bool:
        """Takes it that the second line of a v4 greeting was not received in time."""
        return self._move(Line.PATIENCE)

    def decided(self) -> Optional[ProtocolFlags]:
        """The version that is decided without a protocol line; None if there is none."""
        return V4 if self.stage is Stage.V4 else None

    def _move(self, line: Line) -> bool:
        stage = GREETING[self.stage].get(line)
        if stage is None:
            return False
        self.stage = stage
        return True
