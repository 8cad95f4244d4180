"""With many sensors, too, no turn of the loop does more than a little."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sensor_tools import Ear, Mute, Picky, add_sensors, sampled

from katcp_tornado import Client, DeviceDisconnected, SensorWatcher, SyncState
from katcp_tornado.sensors.cooperator import TURN, Cooperator
from katcp_tornado.sensors.mirror import Mirror
from katcp_tornado.sensors.sampled_sensor import SampledSensor
from katcp_tornado.sensors.sampling import Sampling
from katcp_tornado.sensors.worker import Worker
from katcp_tornado.testing import Delay, FakeDevice, Stall, VirtualTimeLoop

MANY = 3 * TURN + 3
DISCONNECTED, SYNCING, SYNCED, CLOSED = SyncState


# The turns themselves


class Steps:
    """Loop enough for `Cooperator`: calls are kept, and made one turn at a time."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any) -> None:
        self.calls.append(callback)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def turns(self) -> Any:
        """How many there are until nothing is left to do."""
        count = 0
        while self.calls:
            self.turn()
            count += 1
        return count


@pytest.fixture
def loop() -> Any:
    return Steps()


@pytest.fixture
def turns(loop: Any) -> Any:
    def work() -> None:
        turns.go_on()  # type: ignore[attr-defined]

    turns = Cooperator(loop, work)
    return turns


def test_a_little_is_done_at_once(loop: Any, turns: Any) -> None:
    done: list[Any] = []
    turns.each(range(TURN), done.append)
    assert done == list(range(TURN))
    turns.each("ab", done.append)
    assert len(done) == TURN, "there is no room for it in this turn"
    loop.turn()
    assert done[TURN:] == ["a", "b"]
    assert loop.turns() <= 2 and loop.calls == []
    turns.each("c", done.append)
    assert done[-1] == "c"


def test_much_is_done_in_turns(loop: Any, turns: Any) -> None:
    done: list[Any] = []
    turns.each(range(2 * TURN + 5), done.append)
    turns.each("ab", done.append)
    for expected in (TURN, 2 * TURN, 2 * TURN + 7):
        assert len(done) == expected
        loop.turn()
    assert done == [*range(2 * TURN + 5), "a", "b"]
    assert loop.turns() <= 2


def test_what_is_left_is_forgotten(loop: Any, turns: Any) -> None:
    done = []

    def function(thing: Any) -> None:
        done.append(thing)
        if thing == TURN + 5:
            turns.forget()

    turns.each(range(MANY), function)
    turns.each("ab", done.append)
    loop.turns()
    assert done == list(range(TURN + 6))
    turns.each("c", done.append)
    assert done[-1] == "c"


def test_what_was_taken_counts(loop: Any, turns: Any) -> None:
    done: list[Any] = []
    turns.take(TURN - 1)
    turns.each("ab", done.append)
    assert done == ["a"]
    loop.turns()
    assert done == ["a", "b"]


def test_after_a_keyboard_interrupt_it_goes_on(loop: Any, turns: Any) -> None:
    done = []

    def function(thing: Any) -> None:
        done.append(thing)
        if thing in (3, TURN + 7):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.each(range(2 * TURN), function)
    with pytest.raises(KeyboardInterrupt):
        loop.turns()
    loop.turns()
    assert done == list(range(2 * TURN))


# Many sensors


class Watcher(SensorWatcher):
    """Counts what it hears in each batch; ``then`` is called after so many sensors have come."""

    after = TURN + 10

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self.came, self.went, self.states, self.batches = [], [], [], []  # type: ignore[var-annotated]

    def then(self) -> None:
        pass

    def sensor_added(self, name: Any, info: Any) -> None:
        self.came.append(name)
        self.batches[-1] += 1
        if len(self.came) == self.after:
            self.then()

    def sensor_removed(self, name: Any) -> None:
        self.went.append(name)
        self.batches[-1] += 1

    def batch_start(self) -> None:
        self.batches.append(0)

    def state_updated(self, state: Any) -> None:
        self.states.append(state)


@pytest.fixture
def names(device: FakeDevice) -> Any:
    names = [f"s{number:05}" for number in range(MANY)]
    add_sensors(device, names)
    return names


@pytest.fixture
def client(connect: Callable[..., Client]) -> Any:
    return connect()


@pytest.fixture
def watch(client: Any, names: Any) -> Any:
    """``watch(**options)`` adds a watcher."""

    def watch(**options: Any) -> Any:
        watcher = Watcher(client, **options)
        client.add_sensor_watcher(watcher)
        return watcher

    return watch


async def until(condition: Any) -> None:
    """Come back in the turn in which this is so."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("that was never so")


async def until_later(seconds: Any, condition: Any) -> None:
    """The same, after so many seconds."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.set_result, None)
    await done
    await until(condition)


def lose(client: Client) -> None:
    client._link.session_lost(DeviceDisconnected("gone"))


def all_is_well(device: FakeDevice, client: Client, watcher: Any, names: Any) -> None:
    """Everything wanted is mirrored and sampled, and nothing else; nothing is left to be done."""
    assert sorted(watcher.sensors) == sorted(sampled(device)) == sorted(names)
    assert watcher.state is SYNCED and watcher._mirror.behind == 0
    assert sorted(item.name for item in client._sampling._sensors.values()) == sorted(names)


@contextlib.contextmanager
def counted(io_loop: VirtualTimeLoop, monkeypatch: pytest.MonkeyPatch, *functions: Any) -> Iterator[Any]:
    """Counts the calls of these methods, (class, name), in each turn: a dict from name to a Counter."""
    turn, found = itertools.count(), {name: Counter() for _, name in functions}  # type: ignore[var-annotated]
    loop = io_loop.asyncio_loop
    now = [next(turn)]
    once = loop._run_once  # type: ignore[attr-defined]

    def run_once() -> None:
        now[0] = next(turn)
        once()

    def counting(name: Any, method: Any) -> Any:
        def method_counted(*args: Any) -> Any:
            found[name][now[0]] += 1
            return method(*args)

        return method_counted

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_run_once", run_once)
        for owner, name in functions:
            patch.setattr(owner, name, counting(name, getattr(owner, name)))
        yield found


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-MI"])
@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.gen_test
async def test_no_turn_does_more(
    io_loop: VirtualTimeLoop,
    monkeypatch: pytest.MonkeyPatch,
    device: FakeDevice,
    client: Any,
    names: Any,
    protocol: str,
    mute: bool,
) -> None:
    """Whatever is done for each sensor is done for so many at most in one turn, but what has to be one step."""
    device.protocol = protocol
    if mute:
        device.behaviour = Mute()
    await client.wait_connected()
    functions = [(Worker, name) for name in ("_typed", "_take", "_in_force", "_look")]
    functions += [(Sampling, name) for name in ("_settled", "_compare")]  # type: ignore[misc]
    functions += [
        (Mirror, "_put"),  # type: ignore[list-item]
        (Mirror, "_wants"),  # type: ignore[list-item]
        (Mirror, "_remove"),  # type: ignore[list-item]
        (SampledSensor, "needs_type"),  # type: ignore[list-item]
        (SampledSensor, "wanted"),  # type: ignore[list-item]
    ]
    with counted(io_loop, monkeypatch, *functions) as found:
        watcher = SensorWatcher(client)
        client.add_sensor_watcher(watcher)
        subscription = client.subscribe(names)
        for step in ("lose", "change"):
            await watcher.synced()
            await subscription.synced()
            if step == "lose":
                device.drop_all()
                await client.wait_disconnected()
            else:
                device.inform_all("interface-changed")
                await io_loop.idle()
        for name in names:
            del device.sensors[name]
        device.inform_all("interface-changed", "sensor-list")
        await asyncio.sleep(1)  # the brake
        client.remove_sensor_watcher(watcher)
        subscription.cancel()
        await io_loop.idle()
    most = {name: max(counter.values(), default=0) for name, counter in found.items()}
    # A piece that does not fit any more is sent whole; and what is wanted is looked at a few times for each sensor.
    often = {"wanted": 8, "needs_type": 4}
    too_many = {name: count for name, count in most.items() if count > often.get(name, 2) * TURN}
    assert too_many == {}
    silent = {"_look"} if not mute else set()
    assert all(sum(found[name].values()) >= MANY for name in found.keys() - silent), "they are what is called"


@pytest.mark.gen_test
async def test_a_watcher_follows_in_batches(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any
) -> None:
    watcher = watch()
    await watcher.synced()
    assert watcher.came == names
    assert [size for size in watcher.batches if size] == [TURN, TURN, TURN, 3]
    assert watcher.states == [SYNCING, SYNCED]
    all_is_well(device, client, watcher, names)
    for name in names[1:]:
        device.remove_sensor(name)
    watcher.batches.clear()
    device.inform_all("interface-changed", "sensor-list")
    await io_loop.idle()
    assert [size for size in watcher.batches if size] == [TURN, TURN, TURN, 2]
    assert sorted(watcher.went) == names[1:]
    all_is_well(device, client, watcher, names[:1])


@pytest.mark.gen_test
async def test_a_short_list_is_followed_at_once(device: FakeDevice, client: Any, watch: Any, names: Any) -> None:
    for name in names[TURN:]:
        device.remove_sensor(name)
    watcher = watch()
    taken, answered = client._sampling.list._answered, []
    client._sampling.list._answered = lambda *answer: (taken(*answer), answered.append(len(watcher.came)))  # type: ignore[func-returns-value]
    await watcher.synced()
    assert answered == [TURN], "in the step of the answer"
    assert [size for size in watcher.batches if size] == [TURN]


@pytest.mark.parametrize("last", [1, TURN])
@pytest.mark.gen_test
async def test_synced_is_not_claimed_early(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any, last: Any
) -> None:
    """Not even if there is nothing to be done for all the sensors at the beginning of the list."""
    wanted = set(names[-last:])
    seen = []

    def wants(info: Any) -> bool:
        seen.append((watcher.state, synced.done()))
        return info.name in wanted

    watcher = Watcher(client, filter=wants)
    synced = watcher.synced()
    client.add_sensor_watcher(watcher)
    await synced
    assert seen == [(SYNCING, False)] * MANY
    assert watcher.states == [SYNCING, SYNCED]
    all_is_well(device, client, watcher, wanted)


@pytest.mark.gen_test
async def test_the_same_sensors_are_known_at_once(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any
) -> None:
    """A list that is asked for by somebody else, and tells nothing new, does not make a watcher less than SYNCED."""
    watcher = watch()
    await watcher.synced()
    client._sampling.list.ask_all()
    await io_loop.idle()
    assert watcher.states == [SYNCING, SYNCED]
    device.drop_all()
    await client.wait_disconnected()
    await watcher.synced()
    assert watcher.came == names and watcher.went == []
    all_is_well(device, client, watcher, names)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.gen_test
async def test_lost_in_the_middle(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any, inside: bool
) -> None:
    watcher = watch()
    io_soon = io_loop.asyncio_loop.call_soon
    watcher.then = lambda: lose(client) if inside else io_soon(lose, client)
    await client.wait_connected()
    await client.wait_disconnected()
    count = len(watcher.sensors)
    assert TURN < count < MANY and watcher.state is DISCONNECTED
    await io_loop.idle()
    assert len(watcher.sensors) == count, "it goes on with the next connection only"
    await watcher.synced()
    assert watcher.came == names and watcher.went == []
    assert watcher.states == [SYNCING, DISCONNECTED, SYNCING, SYNCED]
    all_is_well(device, client, watcher, names)


@pytest.mark.gen_test
async def test_what_was_to_be_followed_is_nothing_to_the_next_connection(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any
) -> None:
    """The next device may have other sensors, and be long in saying so."""
    watcher = watch()
    watcher.then = lambda: io_loop.asyncio_loop.call_soon(lose, client)
    await client.wait_connected()
    await client.wait_disconnected()
    count = len(watcher.sensors)
    device.on_request("sensor-list", Stall())
    await client.wait_connected()
    await io_loop.idle()
    assert len(watcher.sensors) == count and watcher.state is SYNCING


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.gen_test
async def test_closed_in_the_middle(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any, inside: bool
) -> None:
    watcher = watch()
    watcher.then = lambda: client.close() if inside else io_loop.asyncio_loop.call_soon(client.close)
    await client.wait_closed()
    count = len(watcher.sensors)
    assert TURN < count < MANY and watcher.states == [SYNCING, CLOSED]
    await io_loop.idle()
    assert len(watcher.sensors) == count


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.gen_test
async def test_removed_in_the_middle(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any, inside: bool
) -> None:
    watcher = watch()
    remove = client.remove_sensor_watcher
    watcher.then = lambda: remove(watcher) if inside else io_loop.asyncio_loop.call_soon(remove, watcher)
    await client.wait_connected()
    await io_loop.idle()
    assert TURN < len(watcher.came) < MANY and watcher.went == watcher.came
    assert watcher.sensors == {} and watcher.state is DISCONNECTED
    assert sampled(device) == {} and client._sampling._sensors == {}
    watcher.came.clear()
    client.add_sensor_watcher(watcher)
    watcher.then = lambda: None
    await watcher.synced()
    assert watcher.came == names
    all_is_well(device, client, watcher, names)


@pytest.mark.parametrize("turn", [5, TURN])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("change", ["sensor-list", "sensor"])
@pytest.mark.gen_test
async def test_the_sensors_change_in_the_middle(
    io_loop: VirtualTimeLoop,
    monkeypatch: pytest.MonkeyPatch,
    device: FakeDevice,
    client: Any,
    watch: Any,
    names: Any,
    change: str,
    inside: bool,
    turn: Any,
) -> None:
    """One that was followed goes, one that was still to be followed goes, one becomes another, one comes."""
    for module in ("cooperator", "sampling", "mirror"):
        monkeypatch.setattr(f"katcp_tornado.sensors.{module}.TURN", turn)
    watcher = watch()
    followed, ahead, other = names[3], names[-3], names[-4]

    def changes() -> None:
        for name in (followed, ahead):
            device.remove_sensor(name)
        device.add_sensor(other, "string", "text")
        device.add_sensor("new", "integer", 1)
        for name in (followed, ahead, other, "new") if change == "sensor" else ("",):
            client._link.session.receive(b"#interface-changed %s %s\n" % (change.encode(), name.encode()))

    watcher.then = changes if inside else lambda: io_loop.asyncio_loop.call_soon(changes)
    await asyncio.sleep(0.5)  # the brake
    await watcher.synced()
    left = sorted({*names, "new"} - {followed, ahead})
    all_is_well(device, client, watcher, left)
    assert watcher.states[0] is SYNCING and len(watcher.states) <= 4
    assert watcher.sensors[other].reading.value == b"text"
    assert watcher.sensors[other].info.type_name == "string"


@pytest.mark.gen_test
async def test_the_list_is_refused_in_the_middle(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any
) -> None:
    """What the device has said before is followed to its end; that it is still so is not claimed."""
    watcher = watch()

    def changes() -> None:
        device.on_request("sensor-list", Picky("sensor-list"))
        client._link.session.receive(b"#interface-changed sensor-list\n")

    watcher.then = changes
    await client.wait_connected()
    await io_loop.idle()
    assert list(watcher.sensors) == names and watcher.state is SYNCING
    await watcher.synced()
    all_is_well(device, client, watcher, names)


@pytest.mark.gen_test
async def test_a_filter_that_raises(
    device: FakeDevice, client: Any, watch: Any, names: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {names[3], names[TURN + 3]}
    watcher = watch(filter=lambda info: 1 / (info.name not in odd))
    await watcher.synced()
    all_is_well(device, client, watcher, set(names) - odd)
    assert caplog.text.count("Exception in the filter") == 2


@pytest.mark.parametrize("what", ["remove", "lose", "close"])
@pytest.mark.gen_test
async def test_a_filter_that_does_more(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, watch: Any, names: Any, what: str
) -> None:
    """In the middle of the second turn; what is then done is what would be done for a hook."""
    count = itertools.count()
    acts = {
        "remove": lambda: client.remove_sensor_watcher(watcher),  # type: ignore[has-type]
        "lose": lambda: lose(client),
        "close": client.close,
    }

    def wants(info: Any) -> bool:
        if next(count) == TURN + 7:
            acts[what]()
        return True

    watcher = watch(filter=wants)
    await client.wait_connected()
    await io_loop.idle()
    if what == "lose":
        await watcher.synced()
        all_is_well(device, client, watcher, names)
    elif what == "close":
        assert watcher.states == [SYNCING, CLOSED] and len(watcher.sensors) <= 2 * TURN
    else:
        assert watcher.sensors == {} and client._sampling._sensors == {} and sampled(device) == {}


def test_a_hook_that_raises_keyboard_interrupt(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, names: Any
) -> None:
    """Who starts the loop again finds all in order."""

    def stop() -> None:
        raise KeyboardInterrupt

    watcher = Watcher(client)
    watcher.then = stop  # type: ignore[method-assign]
    client.add_sensor_watcher(watcher)
    with pytest.raises(KeyboardInterrupt):
        io_loop.run_sync(watcher.synced)
    assert watcher.state is SYNCING
    io_loop.run_sync(watcher.synced)
    all_is_well(device, client, watcher, names)


@pytest.mark.gen_test
async def test_several_watchers(device: FakeDevice, client: Any, watch: Any, names: Any) -> None:
    watchers = [watch(), watch(filter=lambda info: info.name > names[TURN]), watch()]
    for watcher in watchers:
        await watcher.synced()
    assert [len(watcher.sensors) for watcher in watchers] == [MANY, MANY - TURN - 1, MANY]
    all_is_well(device, client, watchers[0], names)


@pytest.mark.gen_test
async def test_several_watchers_share_the_turns(
    io_loop: VirtualTimeLoop, monkeypatch: pytest.MonkeyPatch, device: FakeDevice, client: Any, watch: Any, names: Any
) -> None:
    await client.wait_connected()
    with counted(io_loop, monkeypatch, (Mirror, "_put")) as found:
        watchers = [watch() for _ in range(4)]
        await watchers[-1].synced()
    assert sum(found["_put"].values()) == 4 * MANY and max(found["_put"].values()) <= 2 * TURN


@pytest.mark.gen_test
async def test_another_watcher_is_added_in_the_middle(device: FakeDevice, client: Any, watch: Any, names: Any) -> None:
    added = []
    watcher = watch()
    watcher.then = lambda: added.append(watch())
    await watcher.synced()
    await added[0].synced()
    for one in (watcher, added[0]):
        assert one.came == names
        all_is_well(device, client, one, names)


# Many sensors of a subscription


@pytest.mark.gen_test
async def test_lost_while_an_answer_is_being_taken(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, names: Any
) -> None:
    """What was refused on the lost link is nothing to the next one."""
    device.on_request("sensor-list", Picky("sensor-list"))
    ear = Ear()
    subscription = client.subscribe(names, ear)
    await client.wait_connected()
    await until(lambda: subscription.failures)
    assert len(subscription.failures) == TURN
    lose(client)
    device.on_request("sensor-list")
    for _ in range(10):
        await asyncio.sleep(0)
    assert subscription.failures == {} and client._sampling._worker.retry.due is None
    await subscription.synced()
    assert [name for name, _, _ in ear] == names


@pytest.mark.gen_test
async def test_lost_while_answers_are_being_taken(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, names: Any
) -> None:
    """What was accepted on the lost link is nothing to the next one, either."""
    device.on_request("sensor-sampling", *[Delay(1)] * 4)
    subscription = client.subscribe(names, type=int)
    await client.wait_connected()
    await until_later(1, lambda: subscription.waiting < MANY)
    assert subscription.waiting > TURN
    lose(client)
    for _ in range(10):
        await asyncio.sleep(0)
    assert subscription.waiting == MANY
    await subscription.synced()
    assert len(sampled(device)) == MANY


@pytest.mark.parametrize("change", [b"#interface-changed\n", b"#interface-changed sensor s01501 modified\n"])
@pytest.mark.gen_test
async def test_a_sensor_changes_while_the_types_are_taken(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, names: Any, change: bytes
) -> None:
    """It gets the type that it has now."""
    subscription = client.subscribe(names)
    await client.wait_connected()
    await until(lambda: len(client._sampling._worker._untyped) == MANY)
    await until(lambda: len(client._sampling._worker._untyped) < MANY)
    device.add_sensor("s01501", "string", "text")
    client._link.session.receive(change)
    await subscription.synced()
    assert subscription.readings["s01501"].value == b"text"
    assert subscription.readings["s01502"].value == 1502
