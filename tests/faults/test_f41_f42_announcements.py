"""F41 and F42: devices that announce changes in bursts, or again and again."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from sensor_tools import add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import Client, SensorWatcher, SyncState
from katcp_tornado.testing import Behaviour, FakeDevice, RequestContext

PROTOCOLS = ["5.1-MIB", "5.0-MI", "5.0-M", "4"]
SENSORS = [f"s{number:04}" for number in range(200)]
NAMELESS: tuple[str, ...] = ()


class Watcher(SensorWatcher):
    """Counts what it is told."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.updates: list[str] = []
        self.states: list[SyncState] = []

    def sensor_updated(self, name: str, reading: Any) -> None:
        self.updates.append(name)

    def state_updated(self, state: SyncState) -> None:
        self.states.append(state)


@pytest.fixture(params=PROTOCOLS)
def device(request: pytest.FixtureRequest, device: FakeDevice) -> FakeDevice:
    device.protocol = request.param
    add_sensors(device, SENSORS)
    return device


@pytest.fixture
def watcher(connect: Callable[..., Client], device: FakeDevice) -> Watcher:
    client = connect()
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    return watcher


def announce(device: FakeDevice, *names: str) -> None:
    """Announce a change as the device's protocol does: of these sensors, or of any number of them."""
    if device.protocol == "4":
        device.inform_all("device-changed", "sensor-list")
    elif names:
        for name in names:
            device.inform_all("interface-changed", "sensor", name, "modified")
    else:
        device.inform_all("interface-changed")


class Restless(Behaviour):
    """Announces a change whenever it gets a request of this name."""

    def __init__(self, device: FakeDevice, name: str) -> None:
        self.device = device
        self.name = name

    def receive(self, context: RequestContext) -> None:
        context.execute()
        if context.message.name == self.name:
            announce(self.device)


def settings(device: FakeDevice) -> list[str]:
    """The sensors that were set, each as often as it was."""
    return [name for text in asked(device) for name in text.split()[0].split(",")]


# F41


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.gen_test
async def test_f41_a_burst_of_announcements(device: FakeDevice, watcher: Watcher, named: bool) -> None:
    await watcher.synced()
    watcher.updates.clear()
    watcher.states.clear()
    device.received.clear()
    for number in range(2000):
        announce(device, *([SENSORS[number % 100]] if named else NAMELESS))
    await gen.sleep(60)
    assert len(asked(device, "sensor-list")) <= 3
    set_again = settings(device)
    assert sorted(set(set_again)) == (SENSORS[:100] if named and device.protocol != "4" else SENSORS)
    assert max(map(set_again.count, SENSORS)) <= 2, "once, and once more for what was announced meanwhile"
    assert watcher.updates == [], "no reading is delivered twice"
    assert watcher.states == [], "all that is in force stays so"


@pytest.mark.gen_test
async def test_f41_sensors_that_come_one_by_one(device: FakeDevice, watcher: Watcher) -> None:
    await watcher.synced()
    watcher.updates.clear()
    device.received.clear()
    for number in range(20):
        device.add_sensor(f"new{number}", "integer", number)
        announce(device)
        await gen.sleep(0.02)
    await gen.sleep(0.8)
    assert watcher.state is SyncState.SYNCED
    added = sorted(f"new{number}" for number in range(20))
    assert sorted(watcher.updates) == added, "each is told once, the others not at all"
    await gen.sleep(30)
    assert len(settings(device)) <= 20 + 2 * (len(SENSORS) + 20), "those of before once in a round of 5 s"
    assert sorted(watcher.updates) == added


@pytest.mark.gen_test
async def test_f41_a_sensor_that_was_replaced_is_sampled_again(device: FakeDevice, watcher: Watcher) -> None:
    await watcher.synced()
    watcher.updates.clear()
    name = SENSORS[7]
    device.remove_sensor(name)  # which ends its sampling, without a word
    device.add_sensor(name, "integer", 1007)
    assert name not in sampled(device)
    announce(device)
    await gen.sleep(1)
    assert sampled(device)[name] == "auto"
    assert watcher.updates == [name] and watcher.sensors[name].reading is not None
    assert watcher.sensors[name].reading.value == 1007  # type: ignore[union-attr]


@pytest.mark.gen_test
async def test_f41_timeout_hints(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.protocol = "5.1-MIBT"
    client = connect(timeout_hints=True)
    await client.wait_connected()
    await gen.sleep(1)
    device.received.clear()
    for _ in range(1000):
        device.inform_all("interface-changed", "request-list")
    await gen.sleep(60)
    assert len(asked(device, "request-timeout-hint")) == 2


# F42


@pytest.mark.parametrize("name", ["sensor-list", "sensor-sampling"])
@pytest.mark.gen_test
async def test_f42_an_announcement_at_each_question(device: FakeDevice, watcher: Watcher, name: str) -> None:
    """The device is asked less and less often; everything else goes on."""
    device.behaviour = Restless(device, name)
    await watcher.synced()
    device.received.clear()
    started = watcher.io_loop.time()
    for number in range(60):
        device.set_sensor(SENSORS[3], 5000 + number)
        await gen.sleep(1)
        assert watcher.sensors[SENSORS[3]].reading.value == 5000 + number  # type: ignore[union-attr]
        reply = await watcher._sampling._link.pending.request("echo", ("alive",)).future
        assert reply.arguments == [b"alive"]
    assert watcher.io_loop.time() - started < 61, "no request has waited"
    # After 0.1 s at first, every 5 s in the end; the sensors are set once more every 5 s, which are two questions each.
    assert 10 <= len(asked(device, "sensor-list")) <= 26
    rounds = len(settings(device)) / len(SENSORS)
    assert rounds <= 13
    assert watcher.state is SyncState.SYNCED
