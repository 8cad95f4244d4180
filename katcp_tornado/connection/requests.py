"""Requests: what is known of each, and the Future of its reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from ..errors import FailReply, InvalidReply, ReplyTooLarge, WriteBufferFull, as_text
from ..wire.codec import RawMessage
from ..wire.message import Message, excerpt

if TYPE_CHECKING:
    from typing_extensions import Self

    from .pending import PendingRequests


class Reply(NamedTuple):
    """The device's answer to a request: ``reply, informs = yield client.request("help")``."""

    #: The arguments of the reply, after the ``ok``: a list of bytes.
    arguments: list[bytes]
    #: The informs that came before it: a list of `.Message`.
    informs: list[Message]


#: So many times are noted before the observers are told.
MANY_TIMES = 250

_new_reply = tuple.__new__  # what Reply() does, without a call in Python


class Request:
    """A request, from the call to its reply: an entry of a table, and the Future that the caller holds.

    It is not that Future itself: asyncio has a shortcut for awaiting a Future of its own kind, and without it a
    request would cost a fifteenth more. So a Future that was cancelled is noticed when its entry is looked at: when
    something is received for it, at its deadline, or when a few more have gathered. Where that is not soon enough, or
    there is no deadline, `watch` notices it at once.
    """

    __slots__ = (
        "abandoned",
        "arguments",
        "began",
        "deadline",
        "future",
        "holder",
        "informs",
        "line",
        "mark",
        "mid",
        "name",
        "on_inform",
        "raw",
        "sent",
        "size",
        "timeout",
        "weighed",
    )

    future: asyncio.Future[Any]
    holder: PendingRequests
    timeout: Optional[float]
    #: When it was made, on the loop's clock.
    began: float
    deadline: Optional[float]
    name: bytes
    #: The values as the caller gave them: how they are encoded depends on the device.
    arguments: Any
    on_inform: Optional[Callable[[Message], Any]]
    raw: bool
    informs: list[Message]
    mid: Optional[int]
    sent: bool
    #: Set by `.PendingRequests.abandon`, once.
    abandoned: bool
    #: Of a session: see `.queues.Entry`.
    line: bytes
    size: int
    weighed: int
    mark: int

    @classmethod
    def make(
        cls,
        loop: asyncio.AbstractEventLoop,
        holder: PendingRequests,
        timeout: Optional[float],
        name: bytes,
        arguments: Any,
        on_inform: Optional[Callable[[Message], Any]],
        raw: bool,
        now: float,
    ) -> Self:
        """A new one. (An ``__init__`` in Python is called by a detour, which costs a fiftieth of a request.)"""
        self = cls()
        self.future = asyncio.Future(loop=loop)
        self.holder = holder
        self.timeout = timeout
        self.began = now
        self.deadline = None if timeout is None else now + timeout
        self.name = name
        self.arguments = arguments
        self.on_inform = on_inform
        self.raw = raw
        self.informs = []
        self.mid = None
        self.sent = self.abandoned = False
        self.line = b""
        self.size = self.weighed = self.mark = 0
        return self

    def done(self) -> bool:
        """True if the Future is settled, if only because it was cancelled."""
        return self.future.done()

    def watch(self) -> None:
        """Notice at once when the Future is cancelled."""
        self.future.add_done_callback(self._settled)

    def _settled(self, future: asyncio.Future[Any]) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Abandon the request: its reply is not awaited any longer."""
        self.holder.abandon(self)

    def expire(self) -> None:
        """The deadline has passed."""
        self.holder.expire(self)

    def overflow(self, full: WriteBufferFull) -> None:
        """There is no room to send it."""
        self.fail(self.holder.buffer_full(self, full))

    def fail(self, exc: BaseException) -> None:
        """Settle the Future with an exception, unless it is settled.

        A refusal of the device that nobody looks at is reported by asyncio; any other error is not.
        """
        if exc.__class__ is ReplyTooLarge:  # of the session, which does not know whom it speaks with
            exc = ReplyTooLarge(f"{self.holder.label(self)}: {exc}")
        fail(self.future, exc, silent=not isinstance(exc, (FailReply, InvalidReply)))

    def answer(self, raw: RawMessage) -> None:
        """Settle with the device's reply."""
        arguments = raw.arguments
        if self.raw:
            self.future.set_result((Message.wrap(raw), self.informs))
        elif arguments and arguments[0] == b"ok":
            self.future.set_result(_new_reply(Reply, (arguments[1:], self.informs)))
        else:
            self.fail(_refusal(raw, self.informs))


class TimedRequest(Request):
    """A request that notes how long it took, in seconds, from the call to the reply."""

    __slots__ = ()

    def answer(self, raw: RawMessage) -> None:
        """Settle with the device's reply."""
        holder = self.holder
        times = holder.times
        times.append(holder.clock() - self.began)
        if len(times) >= MANY_TIMES:
            holder.tell_times()
        Request.answer(self, raw)


def fail(future: asyncio.Future[Any], exc: BaseException, *, silent: bool = True) -> None:
    """Settle a Future with an exception, unless it is settled; if *silent*, asyncio does not miss a look at it."""
    if not future.done() and not future.get_loop().is_closed():
        future.set_exception(exc)
        if silent:
            future.exception()  # counts as retrieved from now on


def _refusal(raw: RawMessage, informs: list[Message]) -> Union[FailReply, InvalidReply]:
    reply = Message.wrap(raw)
    code, *rest = raw.arguments or [b""]
    if code not in (b"fail", b"invalid"):
        return InvalidReply(f"neither ok, fail nor invalid: {excerpt(raw)}", reply, informs)
    text = as_text(rest[0]) if rest else f"{code.decode()}, for no reason given"
    return (FailReply if code == b"fail" else InvalidReply)(text, reply, informs)
