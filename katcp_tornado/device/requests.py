"""The requests of a device: what ``?help`` tells [section 4.1]."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..connection.brake import Brake
from ..connection.pending import DEFAULT
from ..connection.requests import Reply
from ..errors import FailReply, InvalidReply, ReplyTooLarge
from ..sensors.retry import Retry
from ..sensors.types import text
from ..wire.message import Message
from .names import Entries

if TYPE_CHECKING:
    from ..client import Client


class DeviceRequest:
    """A request of a device: calling it sends it.

    :ivar name: the name, such as ``set-rate``.
    :ivar help: the device's own text; also ``__doc__``.
    """

    def __init__(self, client: Client, name: str, help: str) -> None:
        self._client = client
        self.name = name
        self.help = self.__doc__ = help

    def __call__(
        self,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
    ) -> asyncio.Future[Reply]:
        return self._client.request(
            self.name, *args, timeout=timeout, wait_connected=wait_connected, on_inform=on_inform
        )

    def __repr__(self) -> str:
        return f"<request {self.name}: {self.help.partition(chr(10))[0][:60]}>"


class RequestList:
    """The requests of a client's device, asked for on each connection and when the device announces a change.

    :arg changed: called after each answer that tells something new: the names added, and those removed.
    :arg answered: called after each answer.
    """

    def __init__(
        self, client: Client, changed: Callable[[list[str], list[str]], None], answered: Callable[[], None]
    ) -> None:
        self._client = client
        self._link = client._link
        self._changed = changed
        self._answered = answered
        self._brake = Brake(self._link.loop, self._ask)
        self._retry = Retry(self._link.loop, self._try_again, self._link.options.backoff)
        #: True once the device has answered, if only to refuse, on this connection.
        self.known = False
        #: Why it has not told its requests.
        self.error: Optional[BaseException] = None
        self.entries: Entries[DeviceRequest] = Entries("request", self._unknown)
        self._named: set[str] = set()  # of these a change was announced; "" stands for all
        self._asked: Optional[asyncio.Future[Reply]] = None  # the question that is in flight
        self._ever = False
        for event, callback in (("connected", self._begin), ("disconnected", self._end)):
            self._link.callbacks.add(event, callback)
        client.add_inform_callback("interface-changed", self._announced)
        if client.is_connected:
            self._begin()

    def close(self) -> None:
        """Ask no more."""
        if self._asked is not None:
            self._asked.cancel()
        self._end()
        self._link.callbacks.remove("connected", self._begin)
        self._link.callbacks.remove("disconnected", self._end)
        self._client.remove_inform_callback("interface-changed", self._announced)

    def _unknown(self) -> Any:
        return None if self._ever else (self.error or self._client.last_exc or "")

    def _begin(self) -> None:
        self._named.clear()
        self._brake.ask()

    def _end(self) -> None:
        self.known = False
        self.error = None
        self._asked = None
        self._brake.reset()
        self._retry.reset()

    def _announced(self, message: Message) -> None:
        words = list(map(text, message.arguments))
        what, *rest = words or ["request-list"]
        if what == "request" and rest:
            self._named.add(rest[0])
        elif what in ("sensor-list", "sensor"):
            return
        else:
            self._named.add("")
        self._brake.announce()

    def _try_again(self) -> bool:
        if self._asked is None and self._client.is_connected and (self._named or not self.known):
            self._brake.ask()
        return self._asked is not None

    def _ask(self) -> Optional[asyncio.Future[Reply]]:
        if not self._client.is_connected:
            return None
        named, self._named = self._named, set()
        name = named.pop() if len(named) == 1 and self.known else ""
        told: dict[str, str] = {}
        most = self._link.counters.bytes_in + self._link.options.max_reply
        hear = partial(self._hear, told, most)
        asked = self._asked = self._link.pending.ask("help", (name,) if name else (), on_inform=hear).future
        asked.add_done_callback(partial(self._reply, name, told))
        return asked

    def _hear(self, told: dict[str, str], most: int, message: Message) -> None:
        if message.arguments:
            name, *words = map(text, message.arguments)
            told[name] = " ".join(words)
        if self._link.counters.bytes_in > most and self._asked is not None:
            self._asked.cancel()  # which `_reply` hears of

    def _reply(self, name: str, told: dict[str, str], request: asyncio.Future[Reply]) -> None:
        if request is not self._asked:
            return  # of an earlier connection
        self._asked = None
        error = ReplyTooLarge("the help has no end") if request.cancelled() else request.exception()
        refused = isinstance(error, (FailReply, InvalidReply))
        if name and error is not None and not refused:
            self._named.add(name)  # nothing was heard of it
        elif name:
            self._take({name: told[name]} if error is None and name in told else {}, [name])
        else:
            self.error = error
            self.known = error is None or refused
            if error is None:
                self._take(told, self.entries.names())
        if error is not None and not refused:
            self._retry.failed()
        self._answered()

    def _take(self, told: dict[str, str], before: list[str]) -> None:
        """Take the requests that the device has told in place of those of *before*."""
        self._ever = True
        old = {name: entry for name in before for entry in [self.entries.get(name)] if entry is not None}
        new = {
            name: DeviceRequest(self._client, name, its_help)
            for name, its_help in told.items()
            if name not in old or old[name].help != its_help
        }
        removed = sorted(old.keys() - told.keys())
        self.entries.update(new, removed)
        added = sorted(new.keys() - old.keys())
        if added or removed:
            self._changed(added, removed)
