"""Recorded conversations of real devices.

A recording (``recordings/*.txt``) has a line for each that was sent: seconds since the connect, the connection's label,
``>`` for the client, ``<`` for the device, and what was sent, with its end of line as ``\\n`` and other unprintable
bytes as ``\\xNN``. Long ones stand there abbreviated, with the number of bytes of the whole; here they get that length
again, made of ``_``. What the client sent and no `.Client` ever sends (malformed lines, half lines, very long ones) is
left out, with its answer.
"""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path
from typing import NamedTuple, Optional

from katcp_tornado import Message, MessageType

RECORDINGS = Path(__file__).parent / "conversations"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.txt"))

_ENTRY = re.compile(r" *([0-9.]+) \[([^]]+)\] ([<>!]) (PARTIAL\(no newline yet\) )?(.*)")
_CONNECT = re.compile(r"--- \[([^]]+)\] connected ")
_GAP = re.compile(r" \.\.\.\[([0-9]+) bytes\]\.\.\. ")


class Event(NamedTuple):
    """Something that the device did: when, and what it sent; None: it hung up."""

    time: float
    data: Optional[bytes]


class Exchange:
    """A request, and all that the device sent from then on until the next one."""

    def __init__(self, section: str, time: float, request: Message) -> None:
        self.section = section
        self.time = time
        self.request = request
        self.events: list[Event] = []


class Conversation:
    """What was said on one connection."""

    def __init__(self, section: str, label: str) -> None:
        self.section = section
        self.label = label
        self.greeting: list[Event] = []
        self.exchanges: list[Exchange] = []
        self._waiting: Optional[list[Exchange]] = None
        self._partial = b""

    def asked(self, section: str, time: float, text: str) -> None:
        self._waiting = []
        if _GAP.search(text) or not text.endswith(r"\n"):
            return
        for line in re.split(r"\\n(?=\?)", text[:-2]):
            with contextlib.suppress(ValueError):
                request = Message.parse(_decode(line))
                if request.mtype is MessageType.REQUEST:
                    self._waiting.append(Exchange(section, time, request))
        self.exchanges += self._waiting

    def answered(self, time: float, data: Optional[bytes]) -> None:
        if data is not None:  # the line that follows a half of it is the whole
            data, self._partial = data[len(self._partial) :], b"" if data.endswith(b"\n") else data
        if self._waiting is None:
            self.greeting.append(Event(time, data))
        elif self._waiting:
            names = re.findall(r"^[!#]([\w-]+)", (data or b"").decode("latin-1"))
            named = [each for each in self._waiting if each.request.name in names]
            exchange = (named or self._waiting)[0]
            exchange.events.append(Event(time - exchange.time, data))
            if len(self._waiting) > 1 and named and data[:1] == b"!":  # type: ignore[index]
                self._waiting.remove(exchange)


def _decode(text: str) -> bytes:
    """The bytes of a text in the notation of the recordings, except for ``\\n``: within a line that is KATCP's own."""
    return re.sub(rb"\\\\|\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()) if m[1] else m[0], text.encode())


def _line(text: str) -> bytes:
    """A line of the device, or the half of one."""
    if text.endswith(r"\n"):
        text = text[:-2] + "\n"
    head, length, tail = (*_GAP.split(text), "", "")[:3]
    data, end = _decode(head), _decode(tail)
    return data + b"_" * (int(length or 0) - len(data) - len(end)) + end


@functools.lru_cache(maxsize=None)
class Recording:
    """All conversations of one device, in the order in which they began. Read once, not to be changed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.conversations: list[Conversation] = []
        section, current = "", {}
        for line in (RECORDINGS / f"{name}.txt").read_text(encoding="ascii").splitlines():
            connect, entry = _CONNECT.match(line), _ENTRY.match(line)
            if line.startswith("##### "):
                section = line[6:]
            elif connect:
                current[connect[1]] = Conversation(section, connect[1])
                self.conversations.append(current[connect[1]])
            elif entry:
                time, conversation, text = float(entry[1]), current[entry[2]], entry[5]
                if entry[3] == ">":
                    conversation.asked(section, time, text)
                elif not text.startswith("send error"):
                    conversation.answered(time, _line(text) if entry[3] == "<" else None)
        self.exchanges = [exchange for each in self.conversations for exchange in each.exchanges]
        lines = [data for each in self.exchanges for _, data in each.events if data]
        #: b"!" and b"#": whether replies and informs carry the id of their request.
        self.echoes = {data[:1] for data in lines if re.match(rb"[!#][\w-]+\[", data)}

    def conversation(self, section: str, label: str) -> Conversation:
        """That of this label which was under way in this section."""
        for each in self.conversations:
            if each.label == label and section in ("", each.section, *(e.section for e in each.exchanges)):
                return each
        raise LookupError(f"{self.name} has no {label} in {section!r}")
