"""A KATCP message [guidelines, section 2], on top of katcp_codec."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Optional, Union

from ..errors import QUOTED, SHOWN, quoted, shorten
from . import codec
from .codec import MessageType, RawMessage
from .values import encode

__all__ = ["Message", "MessageType", "encode_name", "excerpt", "printable"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_ESCAPED = [chr(n) if 0x20 <= n < 0x7F else f"\\x{n:02x}" for n in range(256)]
MAX_MID = 2**31 - 1
_new = object.__new__


def printable(raw: bytes) -> str:
    """Text for a log or a terminal: printable ASCII as it is, everything else as an escape."""
    text = raw.decode("latin-1")
    return text if text.isascii() and text.isprintable() else "".join(map(_ESCAPED.__getitem__, raw))


def _beginning(raw: bytes) -> str:
    return shorten(printable(raw[:SHOWN]), count=len(raw) if len(raw) > SHOWN else None)


def excerpt(raw: RawMessage) -> str:
    """The beginning of a message, fit for a log, and its length if that is not all. It is cut before it is escaped."""
    length = len(raw.name) + sum(map(len, raw.arguments)) + len(raw.arguments)
    if length <= QUOTED:
        return shorten(printable(bytes(raw)[:-1]))
    room, arguments = SHOWN, []
    for argument in raw.arguments:
        arguments.append(argument[:room])
        room -= len(argument) + 1
        if room <= 0:
            break
    beginning = bytes(RawMessage(raw.mtype, raw.name[:SHOWN], raw.mid, arguments))[:-1]
    return shorten(printable(beginning[:SHOWN]), count=max(length, len(beginning)))


def encode_name(name: str) -> bytes:
    """The name of a message as it stands on the wire.

    Raises `TypeError` for what is no str, and `ValueError` for what is no name: a letter, then letters, digits and
    ``-`` [section 2.1].
    """
    try:
        return _encode_name(name)
    except TypeError:  # of the cache, for what cannot be hashed
        raise TypeError(f"name must be a str, not {type(name).__name__}") from None


@lru_cache(maxsize=4096)
def _encode_name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError
    if not _NAME.fullmatch(name):
        raise ValueError(f"{quoted(name)} is not a KATCP name: a letter, then letters, digits and '-'")
    return name.encode("ascii")


class Message:
    """A request, a reply or an inform.

    :arg mtype: a `MessageType`.
    :arg name: a letter, then letters, digits and ``-``.
    :arg args: the arguments; each is encoded as by `.encode` with ``major=5``.
    :arg mid: the message id, 1 to 2**31 - 1, or None.

    ``bytes(message)`` is the line on the wire, ``str(message)`` the same without its end and with everything
    that is not printable ASCII escaped, fit for a log. ``repr(message)`` shows the beginning only of a long one.
    """

    __slots__ = ("_raw",)

    def __init__(self, mtype: MessageType, name: str, *args: Any, mid: Optional[int] = None) -> None:
        if not isinstance(mtype, MessageType):
            raise TypeError(f"mtype must be a MessageType, not {type(mtype).__name__}")
        if mid is not None:
            if not isinstance(mid, int) or isinstance(mid, bool):
                raise TypeError(f"mid must be an int or None, not {type(mid).__name__}")
            if not 1 <= mid <= MAX_MID:
                raise ValueError(f"mid must be between 1 and {MAX_MID}, not {quoted(mid)}")
        self._raw = RawMessage(codec.RAW_TYPES[mtype], encode_name(name), mid, [encode(arg) for arg in args])

    @classmethod
    def request(cls, name: str, *args: Any, mid: Optional[int] = None) -> Message:
        """A request: ``?name[mid] args``."""
        return cls(MessageType.REQUEST, name, *args, mid=mid)

    @classmethod
    def reply(cls, name: str, *args: Any, mid: Optional[int] = None) -> Message:
        """A reply: ``!name[mid] args``."""
        return cls(MessageType.REPLY, name, *args, mid=mid)

    @classmethod
    def inform(cls, name: str, *args: Any, mid: Optional[int] = None) -> Message:
        """An inform: ``#name[mid] args``."""
        return cls(MessageType.INFORM, name, *args, mid=mid)

    @classmethod
    def parse(cls, line: Union[bytes, bytearray, memoryview]) -> Message:
        """The message of one line, with or without its end. Raises `ValueError` if it is not one message."""
        if not isinstance(line, (bytes, bytearray, memoryview)):
            raise TypeError(f"line must be bytes, not {type(line).__name__}")
        data = bytes(line)
        found = codec.Parser(len(data) + 2).append(data if data.endswith((b"\n", b"\r")) else data + b"\n")
        if len(found) != 1:
            raise ValueError(f"expected one message, found {len(found)}: {_beginning(data)}")
        raw = found[0]
        if isinstance(raw, ValueError):
            raise ValueError(f"{raw}: {_beginning(data)}")
        return cls.wrap(raw)

    @staticmethod
    def wrap(raw: RawMessage) -> Message:
        """A view of a message as the codec holds it; nothing is copied."""
        self = _new(Message)
        self._raw = raw
        return self

    @property
    def raw(self) -> RawMessage:
        """The message as the codec holds it."""
        return self._raw

    @property
    def mtype(self) -> MessageType:
        """Type of the message."""
        return codec.public_type(self._raw)

    @property
    def name(self) -> str:
        """The name of the message, without its ``?``, ``!`` or ``#``."""
        return self._raw.name.decode("ascii")

    @property
    def mid(self) -> Optional[int]:
        """The message id, None if it has none."""
        return self._raw.mid

    @property
    def arguments(self) -> list[bytes]:
        """The arguments, unescaped; the list itself, so that changing it changes the message."""
        return self._raw.arguments

    def reply_ok(self) -> bool:
        """True if this is a reply whose first argument is ``ok``."""
        return self._raw.mtype is codec.REPLY and self.arguments[:1] == [b"ok"]

    def __bytes__(self) -> bytes:
        return bytes(self._raw)

    def __str__(self) -> str:
        return printable(bytes(self._raw)[:-1])

    def __repr__(self) -> str:
        return f"<Message {excerpt(self._raw)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        mine, its = self._raw, other._raw
        return (
            codec.public_type(mine) is codec.public_type(its)
            and mine.name == its.name
            and mine.mid == its.mid
            and mine.arguments == its.arguments
        )

    __hash__ = None  # type: ignore[assignment]  # the arguments are a list

    def __reduce__(self) -> Any:
        return Message.parse, (bytes(self),)
