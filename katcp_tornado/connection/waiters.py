"""Futures that wait for a state of the client, or for an inform."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from ..errors import WaitTimeout, describe, own_copy
from .options import seconds
from .requests import fail
from .states import State

if TYPE_CHECKING:
    from .link import Link

R = TypeVar("R")


class Waiter(asyncio.Future[R]):
    """A Future that resolves when the client is in some state, or when some inform is received.

    :arg what: the text of the error, what is not so yet; or a function that returns it.
    :arg reached: returns True when the Future is to resolve; None if whoever asked for the waiter resolves it.
    """

    __slots__ = ("cause", "deadline", "holder", "reached", "timeout", "what")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        holder: Waiters,
        timeout: Optional[float],
        what: Union[str, Callable[[], str]],
        reached: Optional[Callable[[], bool]],
    ) -> None:
        super().__init__(loop=loop)
        self.holder = holder
        self.timeout = timeout
        self.deadline = None if timeout is None else loop.time() + timeout
        self.what = what
        self.reached = reached
        #: Tells why it is not so yet; None for the client's own cause.
        self.cause: Optional[Callable[[], Optional[BaseException]]] = None

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the wait."""
        if not super().cancel(msg):
            return False
        self.holder.remove(self)
        return True

    def expire(self) -> None:
        """The deadline has passed."""
        cause = self.holder.last_exc if self.cause is None else self.cause()
        why = f" ({describe(cause)})" if cause is not None else ""
        what = self.what() if callable(self.what) else self.what
        error = WaitTimeout(f"{what} after {self.timeout:g} s{why}")
        error.__cause__ = cause
        self.fail(error)

    def fail(self, exc: BaseException) -> None:
        """Settle with an exception, unless settled already."""
        if not self.done():
            fail(self, exc)
            self.holder.remove(self)

    def resolve(self, result: Any) -> None:
        """Settle with a result, unless settled already."""
        if not self.done() and not self.get_loop().is_closed():
            self.set_result(result)
            self.holder.remove(self)


class Waiters:
    """The waiters of one client that are not settled."""

    __slots__ = ("_all", "_gone", "_link")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._all: dict[Waiter[Any], None] = {}
        self._gone = False

    def __iter__(self) -> Iterator[Waiter[Any]]:
        return iter(self._all)

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why the client is not connected."""
        return self._link.last_exc

    def wait(
        self,
        what: Union[str, Callable[[], str]],
        reached: Optional[Callable[[], bool]],
        timeout: Optional[float],
        kind: Callable[..., Waiter[Any]] = Waiter,
    ) -> Waiter[Any]:
        """A Future that resolves when *reached*, which is asked whenever the state has moved, returns True.

        If *reached* is None, whoever asks for the waiter resolves it. It fails when the client is CLOSED.
        """
        timeout = seconds("timeout", timeout, zero=True)
        waiter = kind(self._link.loop, self, timeout, what, reached)
        if reached is not None and reached():
            waiter.resolve(None)
        elif self._link.state is State.CLOSED and reached != self.is_gone:
            waiter.fail(self._cause())
        else:
            self._all[waiter] = None
            self._link.deadlines.watch(waiter.deadline)
        return waiter

    def remove(self, waiter: Waiter[Any]) -> None:
        """The waiter is settled."""
        self._all.pop(waiter, None)

    def wake(self) -> None:
        """Resolve the waiters whose state is reached. Called when the callbacks have heard of a new state."""
        for waiter in list(self._all):
            if waiter.reached is not None and waiter.reached():
                waiter.resolve(None)

    def close(self) -> None:
        """Fail all that waits for what will not be, since the client is CLOSED."""
        for waiter in list(self._all):
            if waiter.reached != self.is_gone:
                waiter.fail(self._cause())

    def is_gone(self) -> bool:
        """True when nothing of the client is left on the loop."""
        return self._gone

    def leave(self) -> None:
        """Nothing of the client is left on the loop: wake those that wait for that."""
        self._gone = True
        self.wake()

    def _cause(self) -> BaseException:
        assert self._link.last_exc is not None, "a client that is CLOSED has a cause"
        return own_copy(self._link.last_exc)
