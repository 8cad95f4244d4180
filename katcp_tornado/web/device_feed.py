"""One device as the page sees it: its connection, its sensors and its log, while pages are open."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Optional

from .. import Client, Message, Reading, SensorInfo, SensorWatcher, State, SyncState
from ..errors import as_text, describe, one_line

#: Longest text of a value, a description or an error that is sent to a page, in characters.
LONGEST_TEXT = 1000
#: Largest integer that a browser reads exactly.
_EXACT = 2**53 - 1
#: Steps of the connection that are remembered.
_STEPS = 200

#: Time, device, level, logger, text.
LogLine = tuple[float, str, str, str, str]


def shorten(text: str) -> str:
    """*text*, no longer than a page should get."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


class _Mirror(SensorWatcher):
    """The sensors of the device; says when there is something new."""

    def __init__(self, client: Client, news: Callable[[], object], described: Callable[[], object]) -> None:
        super().__init__(client)
        self._news = news
        self._described = described
        self.infos: set[str] = set()  # of these the page must learn more than the reading

    def sensor_added(self, name: str, info: SensorInfo) -> None:
        self.infos.add(name)

    def sensor_removed(self, name: str) -> None:
        self.infos.add(name)

    def batch_stop(self) -> None:
        self._news()

    def state_updated(self, state: SyncState) -> None:
        self._described()


class DeviceFeed:
    """Follows one member of the mapping until it is closed.

    :arg member: the `.Client`, or the `.Device`, of that name.
    :arg wake: called when there is something new to send.
    :arg log: called with each `LogLine`.
    """

    def __init__(self, name: str, member: Any, wake: Callable[[], object], log: Callable[[LogLine], object]) -> None:
        client: Client = getattr(member, "client", member)
        self.name = name
        self.member = member
        self.client = client
        #: True if `description` has changed since it was last sent.
        self.described = True
        self._wake = wake
        self._log = log
        self._steps = deque(_steps_before(client), _STEPS)
        self._mirror = _Mirror(client, wake, self._describe)
        self._changes = self._mirror.changes()
        client.add_state_callback(self._moved)
        client.add_inform_callback("log", self._logged)
        client.add_sensor_watcher(self._mirror)

    def close(self) -> None:
        """Leave nothing behind on the client."""
        self.client.remove_state_callback(self._moved)
        self.client.remove_inform_callback("log", self._logged)
        self.client.remove_sensor_watcher(self._mirror)

    # What happens

    def _describe(self) -> None:
        self.described = True
        self._wake()

    def _moved(self, old: State, new: State) -> None:
        now = time.time()
        self._steps.append((now, new.value))
        if new is State.CONNECTED:
            self._note(now, "info", f"connected to {_address(self.client)}")
        elif old is State.CONNECTED and new is not State.CLOSED:
            self._note(now, "warn", f"link lost: {describe(self.client.last_exc)}")
        elif new is State.CLOSED:
            self._note(now, "warn", f"closed: {describe(self.client.last_exc)}")
        self._describe()

    def _note(self, when: float, level: str, text: str) -> None:
        self._log((when, self.name, level, "connection", shorten(text)))

    def _logged(self, message: Message) -> None:
        level, _, source, *rest = [*message.arguments, b"", b"", b""][: max(3, len(message.arguments))]
        # The time of arrival: a page orders by it, and the clocks of devices differ.
        text = one_line(as_text(b" ".join(rest)))
        self._log((time.time(), self.name, shorten(as_text(level)), shorten(as_text(source)), shorten(text)))
        self._wake()

    # What a page gets

    def take_changes(self) -> dict[str, bool]:
        """Names of the sensors that have changed since the last call; True: not only the reading."""
        infos, self._mirror.infos = self._mirror.infos, set()
        return {name: name in infos for name in self._changes.take()}

    def all_names(self) -> dict[str, bool]:
        """Names of all sensors, as `take_changes` gives them."""
        return dict.fromkeys(self._mirror.sensors, True)

    def row(self, name: str, full: bool) -> list[Any]:
        """A sensor: its name alone if it is gone; else with status, time and value; and, if *full*, what it is."""
        sensor = self._mirror.sensors.get(name)
        if sensor is None:
            return [name]
        row = [name, *_reading(sensor.reading)]
        if full:
            info = sensor.info
            row += [shorten(info.units), info.type_name[:LONGEST_TEXT], shorten(info.description)]
        return row

    def description(self) -> dict[str, Any]:
        """The connection, as a page shows it."""
        client, stats = self.client, self.client.stats
        protocol = client.protocol
        error = client.last_exc if not client.is_connected else self._mirror.last_exc
        return {
            "name": self.name,
            "address": _address(client),
            "state": client.state.value,
            "sync": self._mirror.state.value,
            "error": shorten(describe(error)) if error is not None else None,
            "since": stats.since,
            "retry": stats.next_attempt_in,
            "attempts": stats.attempts,
            "connects": stats.connects,
            "failures": stats.consecutive_failures,
            "protocol": None if protocol is None else f"{protocol.major}.{protocol.minor}",
            "steps": list(self._steps),
            "history": [[f.when, shorten(describe(f.cause)), f.was_connected] for f in stats.history],
        }


def _reading(reading: Optional[Reading]) -> list[Any]:
    if reading is None:
        return ["unknown", None, None]
    plain = reading.plain()
    value = plain["value"]
    if type(value) is str:
        value = shorten(value)
    elif type(value) is int and not -_EXACT <= value <= _EXACT:
        value = shorten(str(value)) if value.bit_length() < 4000 else "(a very large integer)"
    return [plain["status"], plain["timestamp"], value]


def _address(client: Client) -> str:
    return f"[{client.host}]:{client.port}" if ":" in client.host else f"{client.host}:{client.port}"


def _steps_before(client: Client) -> list[tuple[float, str]]:
    """The states of the client up to now, as far as its history of failures tells."""
    stats, steps = client.stats, []
    before: Optional[float] = None
    for failure in stats.history:
        if failure.was_connected and before is not None:
            steps.append((before, State.CONNECTED.value))
        steps.append((failure.when, State.SLEEPING.value))
        before = failure.when
    steps.append((stats.since, client.state.value))
    return steps
