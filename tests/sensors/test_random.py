"""Sensors at random: what is wanted and what is so, with announcements, losses, restarts and refusals in between.

After each step nothing is claimed that is not so. At rest the device samples exactly what is wanted, by the strategy
that is in force, and everybody has the reading that the device has.

``KATCP_TORNADO_SENSOR_STEPS`` makes it a longer run, of so many steps on each protocol, other ones each time.
"""

from __future__ import annotations

import collections
import itertools
import logging
import os
import random
import sys
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tornado import gen

from katcp_tornado import Backoff, Client, Reading, SensorStatus, SensorWatcher, Subscription, SyncState
from katcp_tornado.testing import (
    Behaviour,
    Connection,
    Delay,
    Drop,
    FakeDevice,
    RequestContext,
    Silent,
    VirtualTimeLoop,
)

#: Steps that an ordinary run takes on each protocol at least; the machine stops an example after STEPS of them.
TOTAL, STEPS = 2_500, 50
PROTOCOLS = ("4", "5.0-M", "5.0-MI", "5.1-MIB")
#: Those that a device may have; it begins with the first three.
NAMES = tuple(f"s{number}" for number in range(6))
SOME = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).map(tuple)
TYPES = ("integer", "float", "string")
#: The last one the device does not know.
STRATEGIES = ("auto", "auto", "event", "none", "sometimes")
#: What a device says when sensors have changed; not all devices say anything.
NOTICES = (
    ("interface-changed",),
    ("interface-changed", "sensor-list"),
    ("interface-changed", "sensor", NAMES[0], "modified"),
    ("interface-changed", "request-list"),
    ("device-changed", "sensor-list"),
)
IDLE = -1
TURNS = st.sampled_from([0, 0, 1, 2, IDLE, IDLE])

#: What must have happened in a run that means something.
VARIED = {
    *("subscriptions in sync", "watchers in sync", "readings", "at rest", "at rest on the same link"),
    *("refused", "repeated strategies", "lost"),
}

#: What has happened, over all examples.
seen: collections.Counter[str] = collections.Counter()


class Refuse(Behaviour):
    """Does not execute the request, and refuses it with this code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def receive(self, context: RequestContext) -> None:
        seen["refused"] += 1
        context.connection.send(context.make_reply(self._code, "not now"))


FAULTS = (Refuse("fail"), Refuse("fail"), Refuse("invalid"), Silent(), Delay(0.5), Delay(7.0), Drop())


class Heard:
    """What one subscription or watcher has heard: no reading may be older than the one before it."""

    def __init__(self, flaws: list[str]) -> None:
        self._flaws = flaws
        self._last: dict[str, tuple[float, float]] = {}

    def __call__(self, reading: Reading) -> None:
        seen["readings"] += 1
        if reading.value is not None:
            this = (float(reading.timestamp), float(reading.value))
            if this < self._last.get(reading.name, this):
                self._flaws.append(f"{reading} after {self._last[reading.name]}")
            self._last[reading.name] = this


class Mirror(SensorWatcher):
    """A watcher of some names, which looks whether what it is told is so."""

    def __init__(self, client: Client, names: tuple[str, ...], strategy: str, flaws: list[str]) -> None:
        super().__init__(client, filter=lambda info: info.name in names, strategy=strategy)
        self.names = names
        self.strategy = strategy
        self.flaws = flaws
        self.heard = Heard(flaws)
        self.told = SyncState.DISCONNECTED

    def sensor_updated(self, name: str, reading: Reading) -> None:
        self.heard(reading)
        if self.sensors[name].reading is not reading:
            self.flaws.append(f"told {reading}, which is not the last one")

    def state_updated(self, state: SyncState) -> None:
        self.told = state


class Life(RuleBasedStateMachine):
    """One example: a client, and a device that it stays with through all its restarts."""

    def __init__(self, protocol: str, errors: list[str]) -> None:
        super().__init__()
        self.errors = errors
        self.flaws: list[str] = []
        self.io_loop = VirtualTimeLoop()
        self.loop: Any = self.io_loop.asyncio_loop
        self.loop.set_exception_handler(lambda _, context: errors.append(f"{context}"))
        self.device = FakeDevice(protocol)
        self.device.start()
        self.serial = itertools.count(1)
        for name in NAMES[:3]:
            self.change(name, "integer")
        self.client = Client(
            self.device.host,
            self.device.port,
            backoff=Backoff(first=0.5, maximum=4.0, random=random.Random(1)),
            request_timeout=5.0,
        )
        self.subscriptions: list[Subscription] = []
        self.watchers: list[Mirror] = []
        self.quiet = False  # nothing is under way
        self.silent = False  # the device has changed sensors, and has not said so since, or has not been heard

    def go(self, turns: int) -> None:
        """A step is over; perhaps the loop turns a few times, or until nothing can happen without time passing."""
        seen["steps"] += 1
        self.quiet = turns == IDLE
        if turns == IDLE:
            self.io_loop.run_sync(self.io_loop.idle)
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def sleep(self, seconds: float) -> None:
        self.io_loop.run_sync(lambda: gen.sleep(seconds))

    def change(self, name: str, type_name: Optional[str]) -> None:
        """The device gets a sensor, or another one of that name; without a type, it no longer has it."""
        if type_name is not None:
            number = next(self.serial)
            self.device.add_sensor(name, type_name, str(number) if type_name == "string" else number)
        elif name in self.device.sensors:
            self.device.remove_sensor(name)

    # What is wanted

    @initialize(turns=TURNS)
    def begin(self, turns: int) -> None:
        self.go(turns)

    @rule(names=SOME, strategy=st.sampled_from(STRATEGIES), kind=st.sampled_from([None, None, float]), turns=TURNS)
    def subscribe(self, names: tuple[str, ...], strategy: str, kind: Any, turns: int) -> None:
        callback = Heard(self.flaws)
        self.subscriptions.append(self.client.subscribe(list(names), callback, strategy=strategy, type=kind))
        self.go(turns)

    @rule(index=st.integers(0, 9), again=st.booleans(), turns=TURNS)
    def cancel(self, index: int, again: bool, turns: int) -> None:
        if self.subscriptions:
            old = self.subscriptions.pop(index % len(self.subscriptions))
            names, strategy = old.names, old.strategy
            old.cancel()
            if again:
                self.subscriptions.append(self.client.subscribe(names, Heard(self.flaws), strategy=strategy))
        self.go(turns)

    @rule(names=SOME, strategy=st.sampled_from(STRATEGIES[:4]), turns=TURNS)
    def watch(self, names: tuple[str, ...], strategy: str, turns: int) -> None:
        self.watchers.append(Mirror(self.client, names, strategy, self.flaws))
        self.client.add_sensor_watcher(self.watchers[-1])
        self.go(turns)

    @rule(index=st.integers(0, 9), turns=TURNS)
    def watch_no_more(self, index: int, turns: int) -> None:
        if self.watchers:
            self.client.remove_sensor_watcher(self.watchers.pop(index % len(self.watchers)))
        self.go(turns)

    # What is so

    @rule(name=st.sampled_from(NAMES), turns=TURNS)
    def value(self, name: str, turns: int) -> None:
        sensor = self.device.sensors.get(name)
        if sensor is not None:
            number = next(self.serial)
            self.device.set_sensor(name, str(number) if sensor.type_name == "string" else number)
        self.go(turns)

    @rule(
        names=SOME,
        type_name=st.sampled_from([None, "integer", "integer", "float", "string"]),
        notice=st.sampled_from([None, "each", "all"]),
        turns=TURNS,
    )
    def sensors_change(self, names: tuple[str, ...], type_name: Optional[str], notice: Any, turns: int) -> None:
        for name in names:
            self.change(name, type_name)
            if notice == "each":
                self.device.inform_all("interface-changed", "sensor", name, "modified")
        if notice == "all":
            self.device.inform_all("interface-changed")
        self.silent = self.silent or notice is None
        self.go(turns)

    @rule(notice=st.sampled_from(NOTICES), times=st.sampled_from([1, 1, 3, 40]), turns=TURNS)
    def announce(self, notice: tuple[str, ...], times: int, turns: int) -> None:
        for _ in range(times):
            self.device.inform_all(*notice)
        self.go(turns)

    @rule(
        name=st.sampled_from(["sensor-sampling", "sensor-sampling", "sensor-list", "sensor-value"]),
        faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3),
        turns=TURNS,
    )
    def trouble(self, name: str, faults: list[Behaviour], turns: int) -> None:
        self.device.on_request(name, *faults)
        self.go(turns)

    @rule(reset=st.booleans(), turns=TURNS)
    def lose(self, reset: bool, turns: int) -> None:
        seen["lost"] += len(self.device.connections)
        self.device.drop_all(reset=reset)
        self.go(turns)

    @rule(protocol=st.sampled_from(PROTOCOLS), names=SOME, type_name=st.sampled_from(TYPES), turns=TURNS)
    def restart(self, protocol: str, names: tuple[str, ...], type_name: str, turns: int) -> None:
        """The device comes back with other software: another version, other sensors."""
        self.device.stop()
        self.device.protocol = protocol
        for name in NAMES:
            self.change(name, type_name if name in names else None)
        self.device.start()
        self.go(turns)

    @rule(seconds=st.sampled_from([0.05, 1, 6, 40]))
    def time_passes(self, seconds: float) -> None:
        self.sleep(seconds)
        self.go(IDLE)

    # What must hold

    @rule()
    def rest(self) -> None:
        """The device is well, and says that something has changed: then all is as it is wanted, on the same link."""
        for name in ("sensor-sampling", "sensor-list", "sensor-value"):
            self.device.on_request(name)
        before = self.device.connections
        self.device.inform_all("interface-changed")
        self.silent = False
        self.sleep(150)  # a request that is lost has 5 s; what is refused is tried again within a minute
        self.go(IDLE)
        seen["at rest"] += 1
        seen["at rest on the same link"] += before == self.device.connections
        self.check_rest(*self.device.connections)

    def check_rest(self, connection: Connection) -> None:
        assert self.client.is_connected
        here = set(self.device.sensors)
        everybody = [*self.subscriptions, *(watcher._mirror for watcher in self.watchers if watcher._mirror)]
        everybody.sort(key=lambda one: one.born, reverse=True)
        in_force: dict[str, str] = {}
        for one in everybody:
            seen["repeated strategies"] += len(in_force.keys() & set(one.names))
            cannot = {
                name
                for name in one.names
                if one.strategy == "sometimes" or (name not in here and one.strategy != "none")
            }
            refused = set(one.failures)
            # What is not in force need not have been tried: a newer subscription has taken its place.
            assert cannot - in_force.keys() <= refused <= cannot, (one, dict(one.failures))
            assert one.is_synced is (not refused), one
            for name in set(one.names) - cannot:
                in_force.setdefault(name, one.strategy)
        sampled = {name: strategy for name, strategy in in_force.items() if strategy != "none"}
        assert {name: sampler.strategy for name, sampler in connection.samplers.items()} == sampled
        for subscription in self.subscriptions:
            for name in sampled.keys() & set(subscription.names):
                self.check_reading(name, subscription.readings.get(name))
        for watcher in self.watchers:
            assert watcher.state is SyncState.SYNCED, (watcher.last_exc, dict(watcher.failures))
            assert set(watcher.sensors) == here & set(watcher.names)
            for name in sampled.keys() & set(watcher.sensors) if watcher.strategy != "none" else ():
                self.check_reading(name, watcher.sensors[name].reading)

    def check_reading(self, name: str, reading: Optional[Reading]) -> None:
        assert reading is not None, f"{name} was not read"
        assert reading.status is SensorStatus.NOMINAL
        assert float(reading.value) == float(self.device.sensors[name].reading.value), (name, reading)

    @invariant()
    def check(self) -> None:
        assert self.flaws == [] and self.errors == []
        session = self.client._link.session
        pending = [entry for entry in session.pending() if not entry.done()] if session is not None else []
        setting = [entry for entry in pending if entry.name == b"sensor-sampling"]
        names = [name for entry in setting for name in entry.arguments[0].split(b",")]  # type: ignore[attr-defined]
        assert len(names) == len(set(names)), "two ?sensor-sampling for one sensor"
        assert len([entry for entry in pending if entry.name == b"sensor-list"]) <= 1
        for watcher in self.watchers:
            assert watcher.told is watcher.state
        if not self.client.is_connected:
            assert not any(subscription.is_synced for subscription in self.subscriptions)
            assert {watcher.state for watcher in self.watchers} <= {SyncState.DISCONNECTED}
            readings = [reading for one in self.subscriptions for reading in one.readings.values()]
            readings += [sensor.reading for one in self.watchers for sensor in one.sensors.values() if sensor.reading]
            assert {reading.status for reading in readings} <= {SensorStatus.UNREACHABLE}
        elif self.quiet and not self.silent and len(self.device.connections) == 1:
            self.check_claims(*self.device.connections)

    def check_claims(self, connection: Connection) -> None:
        """Who claims to be in sync, is: of what has just been announced, nobody can know yet."""
        sampling = self.client._sampling
        doubtful = {sensor.name for sensor in sampling._sensors.values() if sensor.recheck}
        if sampling.list._noted or sampling.list._asked or sampling.list._round or sampling.list._queue:
            return
        for subscription in self.subscriptions:
            if subscription.is_synced:
                seen["subscriptions in sync"] += 1
                off = {name for name in subscription.names if name not in connection.samplers}
                wanted = {name for name in off - doubtful if self.newest(name) != "none"}
                assert not wanted, (subscription, wanted)
        for watcher in self.watchers:
            if watcher.state is SyncState.SYNCED:
                seen["watchers in sync"] += 1
                here = {sensor.info.name: sensor.info.type_name for sensor in watcher.sensors.values()}
                there = {name: sensor.type_name for name, sensor in self.device.sensors.items()}
                assert here == {name: there[name] for name in watcher.names if name in there}

    def newest(self, name: str) -> str:
        """The strategy in force of a sensor, as the client believes."""
        sensor = self.client._sampling._sensors.get(name.encode())
        return "none" if sensor is None else sensor.wanted().name

    def teardown(self) -> None:
        try:
            self.client.close()
            self.device.close()
            self.sleep(2)
            assert [handle for handle in self.loop._scheduled if not handle.cancelled()] == []
            assert self.flaws == [] and self.errors == []
        finally:
            self.device.close()
            self.io_loop.close(all_fds=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_wanted_is_so(protocol: str, loop_errors: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "katcp_tornado")  # it logs much
    seen.clear()
    wanted = os.environ.get("KATCP_TORNADO_SENSOR_STEPS")
    first = random.SystemRandom().randrange(2**32) if wanted else 0
    # Hypothesis begins to vary what it has drawn already after ten examples. So: runs of ten.
    options = settings(
        max_examples=10,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    def factory() -> Life:
        loop_errors.clear()
        return Life(protocol, loop_errors)

    for number in itertools.count(first):
        sys.stdout.write(f"seed {number}\n")
        run_state_machine_as_test(seed(number)(factory), settings=options)  # type: ignore[arg-type]
        if seen["steps"] >= int(wanted or TOTAL):
            break
    for what, count in sorted(seen.items()):
        sys.stdout.write(f"{count:8} {what}\n")
    assert set(seen) >= VARIED
