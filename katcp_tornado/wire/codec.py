"""The one place that knows how katcp_codec looks inside.

The codec's public interface copies each message from its extension module into a dataclass, which
costs more than parsing it. This module uses the extension module itself where that has the shape we
expect (setup.py bounds the codec's version from above), and the public interface everywhere else,
or where the environment variable ``KATCP_TORNADO_CODEC`` is ``public``.

Both give the same: `Parser`, whose ``append(data)`` returns a list of raw messages and ValueErrors and
whose ``buffer_size`` counts the bytes of the unfinished line; `RawMessage`, with ``mtype``, ``name``
(bytes), ``mid`` and ``arguments`` (a list of bytes); and the three values of ``mtype``, each a
singleton, to be compared by identity.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional, Union, final

import katcp_codec
from katcp_codec import MessageType


def _inner() -> Any:
    """The codec's extension module, or None if it is not the one that we know."""
    try:
        _lib: Any = katcp_codec._lib
        raw = _lib.Parser(64).append(b"!a[1] b\\_c\n")[0]
        same = raw.mtype is _lib.MessageType.REPLY and raw.arguments is raw.arguments
        fields = (raw.name, raw.mid, raw.arguments) == (b"a", 1, [b"b c"])
        plain = bytes(_lib.Message(_lib.MessageType.REQUEST, b"a", None, [b""])) == b"?a \\@\n"
        return _lib if same and fields and plain and _lib.Parser(64).buffer_size == 0 else None
    except Exception:  # whatever a version of tomorrow may do, the public interface is there
        return None


__all__ = ["INFORM", "INNER", "RAW_TYPES", "REPLY", "REQUEST", "MessageType", "Parser", "RawMessage", "public_type"]

_lib = None if os.environ.get("KATCP_TORNADO_CODEC") == "public" else _inner()

if TYPE_CHECKING:

    @final
    class RawMessage:
        """A message as the codec holds it."""

        mtype: object
        name: bytes
        mid: Optional[int]
        arguments: list[bytes]

        def __init__(self, mtype: object, name: bytes, mid: Optional[int], arguments: list[bytes]) -> None: ...

        def __bytes__(self) -> bytes: ...

    class Parser:
        """Bytes in, messages out."""

        buffer_size: int

        def __init__(self, max_line_length: int) -> None: ...

        def append(self, data: Union[bytes, memoryview]) -> list[Union[RawMessage, ValueError]]: ...

    REQUEST: object
    REPLY: object
    INFORM: object
else:
    _source = katcp_codec if _lib is None else _lib
    Parser, RawMessage = _source.Parser, _source.Message
    REQUEST, REPLY, INFORM = (getattr(_source.MessageType, name) for name in ("REQUEST", "REPLY", "INFORM"))

#: Whether the codec's extension module is used as it is.
INNER = _lib is not None
#: From our `MessageType` to the codec's, and back (by number: the inner type need not be hashable).
RAW_TYPES = {MessageType.REQUEST: REQUEST, MessageType.REPLY: REPLY, MessageType.INFORM: INFORM}


def public_type(raw: RawMessage) -> MessageType:
    """The `MessageType` of a raw message."""
    mtype = raw.mtype
    if mtype is INFORM:
        return MessageType.INFORM
    return MessageType.REPLY if mtype is REPLY else MessageType.REQUEST
