"""What the tests of sensors share: devices that sample in their own way, and what was said to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from katcp_tornado import Message, Reading
from katcp_tornado.testing import Behaviour, Connection, FakeDevice, RequestContext


class Mute(Behaviour):
    """Sends no ``#sensor-status`` when a strategy is set, nor later."""

    def outgoing(self, connection: Connection, data: bytes) -> None:
        if not data.startswith(b"#sensor-status"):
            super().outgoing(connection, data)


class StatusLast(Behaviour):
    """Sends the ``#sensor-status`` that a request leads to after its reply."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def outgoing(self, connection: Connection, data: bytes) -> None:
        if data.startswith(b"#sensor-status"):
            self.held.append(data)
            return
        if data.startswith(b"!sensor-sampling"):
            data += b"".join(self.held)
            self.held.clear()
        super().outgoing(connection, data)


class Picky(Behaviour):
    """Refuses requests of this name, if any of their arguments (between commas) is one of *words*."""

    def __init__(self, name: str, *words: str, code: str = "fail") -> None:
        self.name = name
        self.words = set(words)
        self.code = code
        self.refused = 0

    def receive(self, context: RequestContext) -> None:
        words = b",".join(context.message.arguments).decode().split(",")
        if context.message.name == self.name and (not self.words or self.words.intersection(words)):
            self.refused += 1
            context.connection.send(context.make_reply(self.code, "not now"))
        else:
            context.execute()


def asked(device: FakeDevice, name: str = "sensor-sampling") -> list[str]:
    """The arguments of the requests of this name that the device has executed, each as one text; then it forgets."""
    found = [shown(message) for _, message in device.received if message.name == name]
    device.received[:] = [entry for entry in device.received if entry[1].name != name]
    return found


def shown(message: Message) -> str:
    return b" ".join(message.arguments).decode()


def sampled(device: FakeDevice) -> dict[str, str]:
    """What the only connection samples, and how."""
    (connection,) = device.connections
    return {
        name: " ".join([sampler.strategy, *(argument.decode() for argument in sampler.arguments)])
        for name, sampler in sorted(connection.samplers.items())
    }


def add_sensors(device: FakeDevice, names: Iterable[str]) -> None:
    """Integer sensors, with the values 0, 1, 2 ..."""
    for number, name in enumerate(names):
        device.add_sensor(name, "integer", number)


class Ear(list[Any]):
    """A callback that keeps what it hears: tuples of name, status and value."""

    def __call__(self, reading: Reading) -> None:
        self.append((reading.name, reading.status.value, reading.value))

    def take(self) -> list[tuple[str, str, Any]]:
        """What was heard; then it is forgotten."""
        heard = list(self)
        self.clear()
        return heard
