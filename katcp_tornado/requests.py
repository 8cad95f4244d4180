"""The Futures that a client hands out, and what is known of each while it waits.

They are settled by the client, never by a coroutine or a task of their own. None is ever reported as "never
retrieved": whoever drops a Future does not want to hear of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

from .codec import RawMessage
from .errors import FailReply, InvalidReply, RequestTimeout, WaitTimeout, describe
from .message import Message, printable
from .timers import Timer


class Reply(NamedTuple):
    """What a device answered: ``reply, informs = yield client.request("help")``."""

    #: The arguments of the reply, after the ``ok``: a list of bytes.
    arguments: list[bytes]
    #: The informs that came before it: a list of `.Message`.
    informs: list[Message]


_new_reply = tuple.__new__  # what Reply() does, without a call in Python


class Holder(Protocol):
    """Who keeps the Futures: the link."""

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why the client is not connected."""

    def abandon(self, pending: Union[Waiter, Request]) -> None:
        """Forget it: its Future was cancelled, or its deadline has passed."""


class Pending(Protocol):
    """What waits, with a deadline on the loop's own clock (None: without one)."""

    deadline: Optional[float]

    def done(self) -> bool:
        """Whether the Future is settled."""

    def expire(self) -> None:
        """The deadline has passed."""


class Waiter(asyncio.Future):  # type: ignore[type-arg]
    """Waits until the client is in some state, or until some inform comes.

    :arg what: what is still missing, for the error.
    :arg reached: tells whether the time has come; None if somebody else will say so.
    """

    __slots__ = ("deadline", "holder", "reached", "timeout", "what")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        holder: Holder,
        timeout: Optional[float],
        what: str,
        reached: Optional[Callable[[], bool]],
    ) -> None:
        super().__init__(loop=loop)
        self.holder = holder
        self.timeout = timeout
        self.deadline = None if timeout is None else loop.time() + timeout
        self.what = what
        self.reached = reached

    def cancel(self, msg: Any = None) -> bool:
        """Give it up."""
        if not super().cancel(msg):
            return False
        self.holder.abandon(self)
        return True

    def expire(self) -> None:
        cause = self.holder.last_exc
        why = f" ({describe(cause)})" if cause is not None else ""
        error = WaitTimeout(f"{self.what} after {self.timeout:g} s{why}")
        error.__cause__ = cause
        self.refuse(error)
        self.holder.abandon(self)

    def refuse(self, exc: BaseException) -> None:
        """Settle with an exception, unless settled already."""
        _refuse(self, exc)

    def resolve(self, result: Any) -> None:
        """Settle with a result, unless settled already."""
        if not self.done() and not self.get_loop().is_closed():
            self.set_result(result)
            self.holder.abandon(self)


class Request:
    """A request, from the call to its reply: an entry of a table, and the Future that the caller holds.

    It is not that Future itself: asyncio has a shortcut for awaiting a Future of its own kind, and without it a
    request would cost a fifteenth more. So a Future that was cancelled is found when its entry is looked at: when
    something comes for it, or its deadline, or when a few more have gathered. Where that is not soon enough, or there
    is no deadline, `watch` it.
    """

    __slots__ = (
        "arguments",
        "deadline",
        "done",
        "future",
        "given_up",
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
    #: Whether the Future is settled, if only because it was cancelled.
    done: Callable[[], bool]
    holder: Holder
    timeout: Optional[float]
    deadline: Optional[float]
    name: bytes
    #: The values as the caller gave them: how they are encoded depends on the device.
    arguments: Any
    on_inform: Optional[Callable[[Message], Any]]
    raw: bool
    informs: list[Message]
    mid: Optional[int]
    sent: bool
    #: The holder knows that nobody wants the reply any more.
    given_up: bool
    #: Of a session: see `.lanes.Entry`.
    line: bytes
    size: int
    weighed: int
    mark: int

    @staticmethod
    def make(
        loop: asyncio.AbstractEventLoop,
        holder: Holder,
        timeout: Optional[float],
        name: bytes,
        arguments: Any,
        on_inform: Optional[Callable[[Message], Any]],
        raw: bool,
        now: float,
    ) -> Request:
        """A new one. (An ``__init__`` in Python is called by a detour, which costs a fiftieth of a request.)"""
        self = Request()
        self.future = asyncio.Future(loop=loop)
        self.done = self.future.done
        self.holder = holder
        self.timeout = timeout
        self.deadline = None if timeout is None else now + timeout
        self.name = name
        self.arguments = arguments
        self.on_inform = on_inform
        self.raw = raw
        self.informs = []
        self.mid = None
        self.sent = self.given_up = False
        self.line = b""
        self.size = self.weighed = self.mark = 0
        return self

    def watch(self) -> None:
        """Let the holder know at once when the Future is cancelled."""
        self.future.add_done_callback(self._settled)

    def _settled(self, future: asyncio.Future[Any]) -> None:
        self.holder.abandon(self)

    def expire(self) -> None:
        what = "no reply" if self.sent else "not sent"
        self.refuse(RequestTimeout(f"?{self.name.decode()}: {what} within {self.timeout:g} s", sent=self.sent))
        self.holder.abandon(self)

    def refuse(self, exc: BaseException) -> None:
        """Settle with an exception, unless settled already."""
        _refuse(self.future, exc)

    def answer(self, raw: RawMessage) -> None:
        """Settle with the device's reply."""
        arguments = raw.arguments
        if self.raw:
            self.future.set_result((Message.wrap(raw), self.informs))
        elif arguments and arguments[0] == b"ok":
            self.future.set_result(_new_reply(Reply, (arguments[1:], self.informs)))
        else:
            self.refuse(_refusal(Message.wrap(raw), self.informs))


def _refuse(future: asyncio.Future[Any], exc: BaseException) -> None:
    if not future.done() and not future.get_loop().is_closed():
        future.set_exception(exc)
        future.exception()  # counts as retrieved from now on


def _refusal(reply: Message, informs: list[Message]) -> Union[FailReply, InvalidReply]:
    code, *rest = reply.arguments or [b""]
    if code not in (b"fail", b"invalid"):
        return InvalidReply(f"neither ok, fail nor invalid: {printable(bytes(reply).rstrip())}", reply, informs)
    text = rest[0].decode("utf-8", "backslashreplace") if rest else f"{code.decode()}, for no reason given"
    return (FailReply if code == b"fail" else InvalidReply)(text, reply, informs)


class Deadlines:
    """One timer for all the Futures of a client.

    It is set for the earliest deadline; when it fires, all that is pending is looked through. A Future that is
    settled in time costs nothing here. So that looking through costs a bounded share of the time, however many
    are pending, the timer is not set again for sooner than a microsecond for each.

    :arg pending: returns every Future that waits.
    :arg expire: called with each whose deadline has passed.
    :arg progress: a number that grows with what is read; see `.Timer`.
    """

    __slots__ = ("_expire", "_loop", "_pending", "_timer", "due")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pending: Callable[[], Iterable[Any]],
        expire: Callable[[Any], None],
        progress: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._pending = pending
        self._expire = expire
        self._timer = Timer(loop, self._sweep, progress)
        #: When everything is looked through next.
        self.due = math.inf

    def watch(self, deadline: Optional[float]) -> None:
        """Something with this deadline is pending from now on."""
        if deadline is not None and deadline < self.due:
            self.due = deadline
            self._timer.start_at(deadline)

    def cancel(self) -> None:
        """Nothing is pending any more."""
        self.due = math.inf
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        expired, earliest, count = [], None, 0
        for item in self._pending():
            count += 1
            deadline = item.deadline
            if deadline is None:
                continue
            if deadline <= now:
                expired.append(item)
            elif earliest is None or deadline < earliest:
                earliest = deadline
        self.due = math.inf
        if earliest is not None:
            self.watch(max(earliest, now + count * 1e-6))
        try:
            for item in expired:
                self._expire(item)
        except BaseException:  # a KeyboardInterrupt in a callback: come back to the others
            self.watch(now)
            raise
