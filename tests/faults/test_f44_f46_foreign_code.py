"""F44 and F46: what the user's own code does in the middle of a step: callbacks, and handlers of the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from tornado import gen

from katcp_tornado import Backoff, Client, Message, SensorWatcher, State, SyncState, forward_logs
from katcp_tornado.testing import Answer, Behaviour, FakeDevice, Reset

# F44

STATES = [State.CONNECTING, State.NEGOTIATING, State.CONNECTED, State.SLEEPING]


def stop(*args: Any) -> Any:
    raise KeyboardInterrupt


def run(io_loop: Any, function: Callable[[], Any]) -> int:
    """Run a function to its end, as a person does who starts the loop again; returns how often it was interrupted."""
    interrupts = interrupts_of_others = 0
    while True:
        try:
            io_loop.run_sync(function)
            return interrupts
        except KeyboardInterrupt:
            interrupts += 1
            assert interrupts < 20
        except (RuntimeError, asyncio.TimeoutError) as exc:  # an interrupted run_sync leaves a call that stops the next
            assert "stopped before" in str(exc) or "timed out after None" in str(exc)  # before tornado 6.5
            interrupts_of_others += 1
            assert interrupts_of_others < 20


@pytest.mark.parametrize("at", STATES, ids=str)
def test_f44_a_state_listener(io_loop: Any, device: FakeDevice, connect: Callable[..., Client], at: State) -> None:
    client = connect()
    moves: list[tuple[State, State]] = []
    client.add_state_callback(lambda old, new: stop() if new is at else None)
    client.add_state_callback(lambda old, new: moves.append((old, new)))
    interrupts = run(io_loop, client.wait_connected)
    device.drop_all()
    interrupts += run(io_loop, client.wait_disconnected)
    interrupts += run(io_loop, client.wait_connected)
    assert interrupts >= 1, "it passes"
    assert not isinstance(client.last_exc, KeyboardInterrupt)
    assert [old for old, _ in moves[1:]] == [new for _, new in moves[:-1]], "every step is complete"
    assert moves[-1][1] is State.CONNECTED, "attempts go on"
    client.close()
    run(io_loop, client.wait_closed)


@pytest.mark.parametrize(
    "kind",
    ["connected", "disconnected", "failed_connect", "inform", "on_inform", "filter", "hook", "reading", "condition"],
)
def test_f44_any_other_callback(io_loop: Any, device: FakeDevice, connect: Callable[..., Client], kind: str) -> None:
    device.add_sensor("a", "integer", 1)
    client = connect(backoff=Backoff(first=0.5, maximum=0.5))
    count = [0]

    def once(*args: Any) -> Any:
        count[0] += 1
        if count[0] == 1:
            raise KeyboardInterrupt
        return True

    def on_tick(message: Message) -> None:
        once()

    class Watcher(SensorWatcher):
        def sensor_added(self, name: str, info: Any) -> None:
            if kind == "hook":
                once()

    watcher = Watcher(client, filter=once if kind == "filter" else None)
    client.add_sensor_watcher(watcher)
    client.subscribe("a", once if kind == "reading" else None)
    if kind in ("connected", "disconnected", "failed_connect"):
        getattr(client, f"add_{kind}_callback")(once)
    elif kind == "inform":
        client.add_inform_callback("tick", on_tick)
    elif kind == "condition":
        watcher.wait("a", once)
    if kind == "failed_connect":
        device.behaviour = Reset()
        io_loop.call_later(2, setattr, device, "behaviour", Behaviour())

    async def life() -> None:
        await client.wait_connected()
        device.inform_all("tick")
        await client.request("help", on_inform=on_tick if kind == "on_inform" else None)
        if kind == "disconnected":
            device.drop_all()
            await client.wait_disconnected()
            await client.wait_connected()
        await watcher.synced(timeout=100)

    future = asyncio.ensure_future(life(), loop=io_loop.asyncio_loop)
    assert run(io_loop, lambda: future) == 1
    assert count[0] >= 1 and watcher.state is SyncState.SYNCED
    if kind != "disconnected":
        assert client.stats.disconnects == {}, "no link is lost because of it"


# F46


class Handler(logging.Handler):
    """A handler that acts at the line of this number."""

    def __init__(self, number: int, act: Callable[[], Any]) -> None:
        super().__init__()
        self.number = number
        self.act = act
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        if self.lines == self.number:
            self.act()


@pytest.fixture
def attach() -> Iterator[Callable[..., Handler]]:
    handlers: list[Handler] = []
    logger = logging.getLogger("katcp_tornado")
    level = logger.level

    def attach(number: int, act: Callable[[], Any]) -> Handler:
        handlers.append(Handler(number, act))
        logger.addHandler(handlers[-1])
        logger.setLevel(logging.DEBUG)
        return handlers[-1]

    yield attach
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


async def eventful(device: FakeDevice, client: Client) -> None:
    """A life in which all kinds of lines are logged."""
    client.add_inform_callback("misfit", _misfit)
    client.subscribe(["a", "nothing"])
    forward_logs(client, logging.getLogger("device"))
    await gen.sleep(1)
    device.send_raw(b"nonsense\n#unknown\n#misfit x\n!reply[99]\n#sensor-status 1 1 a nominal x\n#sensor-list\n?who\n")
    await gen.sleep(1)
    device.behaviour = Reset()
    device.drop_all()
    await gen.sleep(5)
    device.behaviour = Behaviour()
    await gen.sleep(100)


def _misfit(count: int) -> None:
    raise AssertionError("that was no number")


@pytest.mark.parametrize("number", range(1, 15))
@pytest.mark.parametrize("act", ["close", "request", "raise"])
@pytest.mark.gen_test
async def test_f46_at_each_line(
    device: FakeDevice, connect: Callable[..., Client], attach: Callable[..., Handler], act: str, number: int
) -> None:
    device.add_sensor("a", "integer", 1)
    device.on_request("sensor-list", Answer("fail", "not now"))
    client = connect()
    made: list[Any] = []
    acts = {"close": client.close, "request": lambda: made.append(client.request("echo", 5)), "raise": _raise}
    handler = attach(number, acts[act])
    moves: list[tuple[State, State]] = []
    client.add_state_callback(lambda old, new: moves.append((old, new)))
    await eventful(device, client)
    assert [old for old, _ in moves[1:]] == [new for _, new in moves[:-1]]
    if handler.lines < number:
        assert number > 8, "there are some lines in any life"
    elif act == "close":
        assert client.state is State.CLOSED
        await client.wait_closed(timeout=0)
    else:
        assert client.is_connected
        assert all(future.done() for future in made)
    client.close()
    await client.wait_closed()


def _raise() -> None:
    raise OSError("no space left on device")
