"""Execution of a request by a `.FakeDevice`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from tornado import gen
from tornado.concurrent import Future

from ..wire.message import Message
from ..wire.values import encode

if TYPE_CHECKING:
    from .behaviours import Behaviour
    from .connection import Connection, Protocol
    from .device import FakeDevice

Arguments = Union[tuple[Any, ...], list[Any], None]
Handler = Callable[["RequestContext", Message], Union[Arguments, Awaitable[Arguments]]]


class Fail(Exception):
    """Raised by a handler: the reply is ``fail`` with this message."""

    code = "fail"


class Invalid(Fail):
    """Raised by a handler: the reply is ``invalid`` with this message."""

    code = "invalid"


class RequestEntry(NamedTuple):
    """Entry of a request in the table of a device."""

    handler: Handler
    description: str
    #: The flag of the protocol, or the least major version, without which it is not known; "" for none.
    needs: str = ""

    def known(self, protocol: Protocol) -> bool:
        """True if a device that speaks this protocol has the request."""
        if self.needs.isdigit():
            return protocol.major >= int(self.needs)
        return not self.needs or self.needs in protocol.flags


class RequestContext:
    """One request on one connection, as the hooks of a `.Behaviour` and the handlers see it."""

    def __init__(self, connection: Connection, message: Message, behaviour: Behaviour) -> None:
        #: The `.Connection` it came by.
        self.connection = connection
        #: The `.Message` as it came.
        self.message = message
        self._behaviour = behaviour

    @property
    def device(self) -> FakeDevice:
        """The `.FakeDevice`."""
        return self.connection.device

    @property
    def major(self) -> int:
        """The major version of KATCP that the connection speaks."""
        return self.connection.protocol.major

    @property
    def mid(self) -> Optional[int]:
        """The id that the reply carries: the request's own, None if the protocol has no flag I."""
        return self.message.mid if "I" in self.connection.protocol.flags else None

    def inform(self, *args: Any) -> None:
        """Send an inform that belongs to the request: it has its name and its id."""
        arguments = [encode(arg, self.major) for arg in args]
        self.connection.send(Message.inform(self.message.name, *arguments, mid=self.mid))

    def make_reply(self, code: str, *args: Any) -> Message:
        """A reply to the request: *code* is ``ok``, ``fail``, ``invalid`` or something odd."""
        arguments = [encode(arg, self.major) for arg in args]
        return Message.reply(self.message.name, code, *arguments, mid=self.mid)

    def execute(self) -> None:
        """Run the handler of the request, and reply when it has finished, in the way of the behaviour."""
        name = self.message.name
        self.device.received.append((self.connection.number, self.message))
        self.device.changed()  # whoever waits for it finds it in flight
        entry = self.device.find_request(self.connection, name)
        if entry is None:
            self._reply("invalid", f"unknown request {name}")
            return
        try:
            result = entry.handler(self, self.message)
            if result is None or isinstance(result, (tuple, list)):
                self._reply("ok", *(result or ()))
            else:
                self.connection.track(gen.convert_yielded(result), self._finished)
                self.device.changed()
        except Exception as exc:
            self._failed(exc)

    def _finished(self, future: Future[Any]) -> None:
        try:
            self._reply("ok", *(future.result() or ()))
        except Exception as exc:
            self._failed(exc)

    def _failed(self, exc: Exception) -> None:
        if isinstance(exc, Fail):
            self._reply(exc.code, *exc.args)
        else:
            self.device.report(exc)
            self._reply("fail", f"{type(exc).__name__}: {exc}")

    def _reply(self, code: str, *args: Any) -> None:
        reply = self.make_reply(code, *args)
        self._behaviour.reply(self, reply)
        self.device.changed()
