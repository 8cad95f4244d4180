"""The protocol version of a device, and its optional features [section 4.2]."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import ProtocolError, quoted

_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})(?:-([A-Za-z0-9]*))?")
#: The major versions that we speak.
MAJORS = (4, 5)


class ProtocolFlags(NamedTuple):
    """Protocol of a device: ``major.minor`` and its feature flags, a frozenset of letters.

    The letters that the guidelines know: M several clients, I message ids, T timeout hints, B bulk sampling.
    """

    major: int
    minor: int
    flags: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> ProtocolFlags:
        """The flags of the argument of ``#version-connect katcp-protocol``, such as ``5.1-MIB``.

        Raises `.ProtocolError` if it cannot be read, or names a major version that we do not speak.
        """
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ProtocolError(f"cannot be read as a protocol version: {quoted(text)}", text)
        major, minor, letters = match.groups()
        if int(major) not in MAJORS:
            raise ProtocolError(f"the device speaks KATCP {text}, the client versions 4 and 5", text)
        return cls(int(major), int(minor), frozenset(letters or ""))

    def supports(self, flag: str) -> bool:
        """True if the device has said that it has the feature *flag*, a letter."""
        return flag in self.flags

    def __str__(self) -> str:
        letters = "".join(sorted(self.flags))
        return f"{self.major}.{self.minor}" + (f"-{letters}" if letters else "")


#: A device with a v4 greeting; there are no flags in KATCP v4.
V4 = ProtocolFlags(4, 0, frozenset())
