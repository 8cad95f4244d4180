"""Futures of many members: of their answers, and of their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Optional, Union

from ..client import Client
from ..device import Device
from ..errors import QuorumNotReached, WaitTimeout, describe
from .reply import GroupReply

Member = Union[Client, Device]


def client_of(member: Member) -> Client:
    return member if isinstance(member, Client) else member.client


class Gathering(asyncio.Future):  # type: ignore[type-arg]
    """A Future of the results of others, which are nobody else's.

    :arg enough: so many results are waited for; then, and *grace* seconds later, the others are cancelled.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        what: str,
        parts: Mapping[str, asyncio.Future[Any]],
        needed: int,
        enough: int,
        grace: float,
    ) -> None:
        super().__init__(loop=loop)
        self._what = what
        self._parts = parts
        self._needed = needed
        self._enough = enough
        self._grace = grace
        self._timer: Optional[asyncio.TimerHandle] = None
        self._good = 0
        self._left = len(parts)
        for part in parts.values():
            part.add_done_callback(self._part_done)
        if not parts:
            self._finish()

    def cancel(self, msg: Any = None) -> bool:
        """Cancel it, and all that it waits for."""
        if not super().cancel(msg):
            return False
        self._stop()
        return True

    def _part_done(self, part: asyncio.Future[Any]) -> None:
        self._left -= 1
        error = None if part.cancelled() else part.exception()  # which counts as retrieved from now on
        if error is None and not part.cancelled():
            self._good += 1
        elif self._good + self._left < self._enough < len(self._parts) and not isinstance(error, WaitTimeout):
            self._finish()  # the quorum will never be reached
        if not self._left:
            self._finish()
        elif self._good >= self._enough and self._timer is None and not self.done():
            self._timer = self.get_loop().call_later(self._grace, self._finish)

    def _finish(self) -> None:
        if not self.done():
            found = {name: _outcome(part) for name, part in self._parts.items() if part.done()}
            if self._good >= self._enough:  # who is late was not needed
                found = {name: one for name, one in found.items() if not isinstance(one, WaitTimeout)}
            self.set_result(self._made(found))
            self._stop()

    def _made(self, found: dict[str, Any]) -> Any:
        return GroupReply(self._what, found, self._needed)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for part in self._parts.values():
            part.cancel()


class Closed(Gathering):
    def _finish(self) -> None:
        for part in self._parts.values():
            if not self.done() and part.done() and not part.cancelled() and part.exception() is not None:
                self.set_exception(part.exception())  # type: ignore[arg-type]
        super()._finish()

    def _made(self, found: dict[str, Any]) -> None:
        return None


def _outcome(part: asyncio.Future[Any]) -> Any:
    if part.cancelled():
        return asyncio.CancelledError()
    return part.exception() or part.result()


class Connected(asyncio.Future):  # type: ignore[type-arg]
    """A Future of the names of the members that are connected, once they are enough."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, members: dict[str, Member], needed: int, timeout: Optional[float]
    ) -> None:
        super().__init__(loop=loop)
        self._clients = {name: client_of(member) for name, member in members.items()}
        self._needed = needed
        self._listeners: dict[str, Callable[..., None]] = {}
        self._timer = None if timeout is None else loop.call_later(timeout, self._expire, timeout)
        self.add_done_callback(self._stop)
        self._connected: set[str] = set()
        self._closed: dict[str, Client] = {}
        for name, client in self._clients.items():
            self._listeners[name] = partial(self._moved, name, client)
            client.add_state_callback(self._listeners[name])
            self._note(name, client)
        self._look()

    def _moved(self, name: str, client: Client, *_: object) -> None:
        self._note(name, client)
        self._look()

    def _note(self, name: str, client: Client) -> None:
        """Take note of the state of a member: with each change only one is looked at."""
        (self._connected.add if client.is_connected else self._connected.discard)(name)
        if client.state.name == "CLOSED":
            self._closed[name] = client

    def _look(self) -> None:
        if self.done():
            return
        if len(self._connected) >= self._needed:
            connected = self._names()
            if len(connected) >= self._needed:  # otherwise one has been lost, and has not said so yet
                self.set_result(connected)
        elif len(self._clients) - len(self._closed) < self._needed:  # it will never be
            error = next(iter(self._closed.values())).last_exc
            self.set_exception(QuorumNotReached(self._text(), MappingProxyType({})))
            self.exception().__cause__ = error  # type: ignore[union-attr]

    def _names(self) -> list[str]:
        return [name for name, client in self._clients.items() if client.is_connected]

    def _text(self) -> str:
        connected = self._names()
        missing = [
            f"{name} ({describe(client.last_exc)})" if client.last_exc is not None else name
            for name, client in self._clients.items()
            if name not in connected
        ]
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        return f"{len(connected)} of {self._needed} needed are connected; missing: {', '.join(missing[:5])}{more}"

    def _expire(self, timeout: float) -> None:
        if not self.done():
            self.set_exception(WaitTimeout(f"{self._text()} after {timeout:g} s"))
            self.exception()  # counts as retrieved from now on

    def _stop(self, _: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for name, listener in self._listeners.items():
            self._clients[name].remove_state_callback(listener)
        self._listeners.clear()
