"""A device that plays a recording."""

from __future__ import annotations

import collections
import heapq
import itertools
import re
from collections.abc import Iterator
from typing import Any

from recordings.recording import Event, Exchange, Recording

from katcp_tornado import Message
from katcp_tornado.testing import Behaviour, Connection, RequestContext

#: The recordings of servers that are made with the C library.
C = ("c_ska_v4", "c_ska_v5", "tcpborphserver3_v5")
#: Those with the flag B.
BULK = ("aiokatcp", "katcp_python_v51")


def sampled(name: str) -> str:
    """The sensor whose sampling was recorded."""
    return {"rust": "packet-count", "tcpborphserver3_v5": "mode"}.get(name, "ticker")


class Replay(Behaviour):
    """A `.FakeDevice` does and says what the recorded one did, with the same delays.

    A request that was made several times is answered as it was then, time after time, and from the beginning again. The
    ids are those of the client, where the device has repeated them.

    :arg section: greet and answer as in this part of the recording; requests that it does not have are answered as in
        the others. By default it is the whole first connection. `conversation` may also be set.
    :arg label: the connection of that section whose greeting it is.
    :arg compress: without the delays.
    """

    def __init__(self, name: str, section: str = "", label: str = "c1", *, compress: bool = False) -> None:
        self.recording = Recording(name)
        self.conversation = self.recording.conversation(section, label)
        self._section = section
        self._compress = compress
        self._count: dict[object, Iterator[int]] = collections.defaultdict(itertools.count)
        self._agenda: dict[object, list[object]] = collections.defaultdict(list)
        self._number = itertools.count()  # what is due at the same time keeps its order

    def greet(self, connection: Connection) -> None:
        greeting = self.conversation.greeting
        self._play(connection, connection.now - greeting[0].time, greeting)  # the recorder may have looked late

    def receive(self, context: RequestContext) -> None:
        connection, message = context.connection, context.message
        context.device.received.append((connection.number, message))
        exchange = self._find(connection, message)
        answer = [Event(time, data and self._with_id(exchange, message, data)) for time, data in exchange.events]
        self._play(connection, connection.now, answer)
        context.device.changed()

    def _find(self, connection: Connection, message: Message) -> Any:
        wanted = (message.name, message.arguments)
        same = [e for e in self.recording.exchanges if (e.request.name, e.request.arguments) == wanted]
        if same:
            here = [each for each in same if each.section == self._section]
            found = here or [each for each in same if each in self.conversation.exchanges] or same
            count = self._count[connection, message.name, tuple(message.arguments)]
            return found[next(count) % len(found)]
        return self.compose(message)

    def recorded(self, name: str, *arguments: bytes) -> Exchange:
        """The first exchange with this request."""
        wanted = (name, [*arguments])
        return next(e for e in self.recording.exchanges if (e.request.name, e.request.arguments) == wanted)

    def compose(self, message: Message) -> Exchange:
        """The exchange of a request that was not recorded: as that of one that the device does not know."""
        exchange = Exchange("", 0.0, Message.request(message.name))
        for time, data in self.recorded("nosuch").events:
            exchange.events.append(Event(time, data and data.replace(b"nosuch", message.name.encode())))
        return exchange

    def _with_id(self, exchange: Any, message: Message, data: Any) -> Any:
        def replace(match: Any) -> Any:
            echoed = match[2] or (exchange.request.mid is None and match[1][:1] in self.recording.echoes)
            return match[1] + (b"[%d]" % message.mid if echoed and message.mid is not None else b"")

        return re.sub(rb"^([!#]%s)(\[[0-9]+\])?(?=[ \n])" % message.name.encode(), replace, data)

    def _play(self, connection: Connection, start: Any, events: Any) -> None:
        for time, data in events:
            when = start if self._compress else start + time
            heapq.heappush(self._agenda[connection], (when, next(self._number), data))  # type: ignore[type-var]
        self._run(connection)

    def _run(self, connection: Connection) -> None:
        agenda = self._agenda[connection]
        while agenda and agenda[0][0] <= connection.now + 1e-6:  # type: ignore[index]
            *_, data = heapq.heappop(agenda)  # type: ignore[misc, type-var]
            connection.close() if data is None else connection.write(data)  # type: ignore[has-type]
        if agenda:
            connection.call_later(agenda[0][0] - connection.now, self._run, connection)  # type: ignore[index]


class SensorReplay(Replay):
    """A `Replay` that knows what the device would have said of sensors that nobody has asked for."""

    def compose(self, message: Message) -> Exchange:
        name, arguments = message.name, message.arguments
        exchange = Exchange("", 0.0, Message.request(name))
        if name in ("sensor-list", "sensor-value") and len(arguments) == 1:
            exchange.events = self._select(name, arguments[0])
        elif name == "sensor-sampling" and len(arguments) > 1:
            exchange.events = self._sample(arguments[0], arguments[1:])
        else:
            return super().compose(message)
        return exchange

    def informs(self, name: str) -> dict[bytes, Message]:
        """From the name of each sensor to its inform in the reply to ?sensor-list or ?sensor-value."""
        start = b"#" + name.encode()
        found = [Message.parse(data) for _, data in self.recorded(name).events if data and data.startswith(start)]
        return {message.arguments[0 if name == "sensor-list" else 2]: message for message in found}

    def _select(self, name: str, wanted: bytes) -> list[Event]:
        """All that match; for a C device these are all that begin so."""
        found = [
            message
            for sensor, message in self.informs(name).items()
            if sensor == wanted or (self.recording.name in C and sensor.startswith(wanted))
        ]
        if not found:
            return self.recorded(name, b"nosuch").events
        return [Event(0.0, bytes(message)) for message in [*found, Message.reply(name, "ok", len(found))]]

    def _sample(self, names: bytes, strategy: list[bytes]) -> list[Event]:
        values = self.informs("sensor-value")
        wanted = names.split(b",") if self.recording.name in BULK else [names]
        if not values.keys() >= set(wanted):
            return self.recorded("sensor-sampling", b"nosuch", b"event").events
        model = sampled(self.recording.name).encode()
        try:
            events = self.recorded("sensor-sampling", model, *strategy).events
        except StopIteration:
            events = self.recorded("sensor-sampling", model, b"nosuchstrategy").events
        last = next(i for i, (_, data) in enumerate(events) if data and data.startswith(b"!"))
        if self.recording.name in C and b" ok " in (events[last].data or b"") and strategy != [b"none"]:
            last += 1  # the first status, where it does not wait for a change
        answer = []
        for time, data in events[: last + 1]:
            if data and data.startswith(b"#sensor-status"):
                informs = [Message.inform("sensor-status", *values[sensor].arguments) for sensor in wanted]
                answer.append(Event(time, b"".join(map(bytes, informs))))
            else:
                answer.append(Event(time, data and data.replace(model, names)))
        return answer
