"""Interleavings: at any boundary between two steps, something else happens, and what is promised holds all the same.

A boundary is the end of whatever the loop calls (a step of a coroutine, a timer, a socket that is ready, a callback of
a Future), and any piece of foreign code that the client calls: listeners, hooks of a watcher, predicates, handlers of
the log. They are counted; a plan says at which of them what is done. Hypothesis makes the plans, and makes one that
fails as short as it can. ``KATCP_TORNADO_INTERLEAVINGS=100000`` runs as many of them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado import gen

from katcp_tornado import Backoff, Client, Message, Reading, SensorInfo, SensorWatcher, State
from katcp_tornado.connection.states import TRANSITIONS
from katcp_tornado.testing import FakeDevice, Silent, VirtualTimeLoop

RUNS = int(os.environ.get("KATCP_TORNADO_INTERLEAVINGS", "1000"))
GARBAGE = b"\xff\xfe garbage\n!echo[99] ok\n!echo ok\n#sensor-status\n#version-connect\n#tick[3] x\n?watchdog[1]\n"
FOREIGN = "an error of foreign code"

Plan = list[tuple[int, str, int]]


class Hooked(SensorWatcher):
    """Its hooks are boundaries."""

    def __init__(self, client: Client, run: Run) -> None:
        super().__init__(client)
        self.run = run

    def sensor_added(self, name: str, info: SensorInfo) -> None:
        self.run.boundary(foreign=True)

    def sensor_removed(self, name: str) -> None:
        self.run.boundary(foreign=True)

    def sensor_updated(self, name: str, reading: Reading) -> None:
        self.run.boundary(foreign=True)

    def batch_stop(self) -> None:
        self.run.boundary(foreign=True)

    def state_updated(self, state: Any) -> None:
        self.run.boundary(foreign=True)


class Run(logging.Handler):
    """One client, one device, and a plan."""

    def __init__(self, protocol: str, plan: Plan) -> None:
        super().__init__()
        self.io_loop = VirtualTimeLoop(horizon=10_000)
        self.loop = self.io_loop.asyncio_loop
        self.plan: dict[int, list[tuple[str, int]]] = {}
        for index, action, number in plan:
            self.plan.setdefault(index, []).append((action, number))
        self.count = 0
        self.over = False
        self.errors: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self.device = FakeDevice(protocol)
        for name in ("a", "b"):
            self.device.add_sensor(name, "integer", 1)
        self.device.start()
        self.watched = len(self.registered())
        self.client = Client(
            *(self.device.host, self.device.port),
            backoff=Backoff(first=0.5, maximum=4),
            watchdog=20,
            drain_timeout=8,
            request_timeout=30,
        )
        self.closed = False
        self.futures: list[asyncio.Future[Any]] = []
        self.states: list[tuple[State, State]] = []
        self.heard: list[str] = []
        self.subscriptions: list[Any] = []
        self.watchers: list[Hooked] = []
        client = self.client
        client.add_state_callback(lambda old, new: self.note(self.states, (old, new)))
        client.add_connected_callback(lambda: self.note(self.heard, "connected"))
        client.add_disconnected_callback(lambda: self.note(self.heard, "disconnected"))
        client.add_failed_connect_callback(lambda exc: self.note(self.heard, "failed"))
        client.add_inform_callback("tick", lambda message: self.boundary(foreign=True))

    # Boundaries

    def note(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self.boundary(foreign=True)

    def emit(self, record: logging.LogRecord) -> None:
        self.boundary(foreign=True)

    def predicate(self, message: Message) -> bool:
        self.boundary(foreign=True)
        return bool(message.arguments)

    def boundary(self, foreign: bool = False) -> None:
        if self.over:
            return
        self.count += 1
        for action, number in self.plan.pop(self.count - 1, ()):
            self.act(action, number, foreign)

    def act(self, action: str, number: int, foreign: bool) -> None:
        client, device = self.client, self.device
        if action == "close":
            self.closed = True
            client.close()
        elif action == "cancel" and self.futures:
            self.futures[number % len(self.futures)].cancel()
        elif action == "interrupt":
            raise KeyboardInterrupt
        elif action == "error" and foreign:
            raise LookupError(FOREIGN)
        elif action == "loss":
            device.drop_all(reset=bool(number % 2))
        elif action == "goodbye":
            device.drop_all(reason="tired")
        elif action == "garbage":
            device.send_raw(GARBAGE)
        elif action == "down" and device.running:
            device.stop(reset=bool(number % 2))
            self.loop.call_later(number, device.start)
        elif action == "silent":
            device.on_request("echo", Silent())
        elif action == "announce":
            device.send_raw(b"#interface-changed\n#tick 1\n")
        elif action == "retry":
            client.retry_now()
        elif action == "request":
            self.ask(number)
        elif action == "wait":
            self.wait(number)
        elif action == "subscribe":
            self.subscriptions.append(client.subscribe(["a", "b"], lambda reading: self.boundary(foreign=True)))
        elif action == "unsubscribe" and self.subscriptions:
            self.subscriptions.pop(number % len(self.subscriptions)).cancel()
        elif action == "watch" and not self.watchers:
            self.watchers.append(Hooked(client, self))
            client.add_sensor_watcher(self.watchers[0])
        elif action == "unwatch" and self.watchers:
            client.remove_sensor_watcher(self.watchers.pop())
        elif action == "stall":
            self.io_loop._clock.advance(3)
        elif action == "collect":
            gc.collect()
        elif action == "fork":
            self.fork(number)

    def ask(self, number: int) -> None:
        ask = self.client.request_raw if number & 1 else self.client.request
        on_inform = (lambda message: self.boundary(foreign=True)) if number & 2 else None
        timeout = 5 if number & 4 else None
        name, arguments = ("help", ()) if number & 8 else ("echo", (number,))
        self.futures.append(
            ask(name, *arguments, timeout=timeout, wait_connected=bool(number & 16), on_inform=on_inform)
        )

    def wait(self, number: int) -> None:
        client, timeout = self.client, (1, None)[number & 1]
        makers: list[Callable[[], asyncio.Future[Any]]] = [
            lambda: client.wait_connected(timeout),
            lambda: client.wait_disconnected(timeout),
            lambda: client.wait_inform("tick", self.predicate, timeout),
            lambda: client.sensor_reading("a"),
            client.sensor_list,
        ]
        self.futures.append(makers[number % len(makers)]())

    def fork(self, number: int) -> None:
        """A child that closes the client, or collects it, and ends."""
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(20)
                if number % 2:
                    self.client.close()
                gc.collect()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0

    # The run

    def until(self, future: asyncio.Future[Any]) -> None:
        """Run the loop, again after each interrupt."""
        future.add_done_callback(lambda _: self.loop.stop())
        while not future.done():
            try:
                self.loop.run_forever()
            except KeyboardInterrupt:
                pass
        future.result()

    async def script(self) -> None:
        """What happens between the boundaries."""
        for number in (0, 16, 23, 2, 10):
            self.ask(number)
            self.wait(number)
            await asyncio.sleep(0)
        await asyncio.wait([self.client.wait_connected(30)])
        for number in (0, 3, 6, 12, 14):
            self.ask(number)
            self.wait(number)
            await gen.sleep(0.3)
        self.device.send_raw(b"#tick\n#tick 1\n")
        await gen.sleep(20)

    async def recovery(self) -> None:
        """Nothing happens to it any more: it is up within two of the longest delays, the drain and a watchdog."""
        await gen.sleep(100)
        if self.closed:
            assert self.client.state is State.CLOSED
        else:
            assert self.client.is_connected, self.client
            await self.client.request("watchdog", timeout=60)

    async def end(self) -> None:
        self.client.close()
        await self.client.wait_closed()
        await self.io_loop.idle()

    def registered(self) -> dict[Any, Any]:
        return dict(self.loop._selector.get_map())

    def check(self) -> None:
        """What is promised, once the client is closed."""
        assert all(future.done() for future in self.futures)
        for future in self.futures:
            if not future.cancelled():
                future.exception()
        assert self.errors == []
        assert len(self.registered()) == self.watched  # the device's
        link = self.client._link
        assert [*link.pending, *link.waiters] == []
        assert link._sleep is None and link._dial is None and link._transport is None and link.session is None
        state = self.states[0][0]
        for old, new in self.states:
            assert old is state and new in TRANSITIONS[old]
            state = new
        assert state is State.CLOSED
        ups = [what for what in self.heard if what != "failed"]
        assert ups == ["connected", "disconnected"] * (len(ups) // 2)
        assert ups.count("connected") == self.client.stats.connects
        moves = Counter(self.states)
        failed = moves[State.CONNECTING, State.SLEEPING] + moves[State.NEGOTIATING, State.SLEEPING]
        assert self.heard.count("failed") == failed
        assert self.client.stats.attempts >= failed

    def go(self) -> int:
        """Returns the number of boundaries."""
        logger = logging.getLogger("katcp_tornado")
        logger.addHandler(self)
        try:
            with boundaries(self):
                self.until(self.loop.create_task(self.script()))
                self.over = True
            self.until(self.loop.create_task(self.recovery()))
            self.until(self.loop.create_task(self.end()))
            self.check()
            self.device.close()
            self.until(self.loop.create_task(self.settled()))
            assert [handle for handle in self.loop._scheduled if not handle.cancelled()] == []
            return self.count
        finally:
            self.over = True
            logger.removeHandler(self)
            self.client.close()
            self.device.close()
            self.io_loop.close(all_fds=True)

    async def settled(self) -> None:
        await self.io_loop.idle()


@contextmanager
def boundaries(run: Run) -> Iterator[None]:
    """The end of each handle of the loop is a boundary."""
    handle: Any = asyncio.Handle
    original = handle._run

    def _run(self: Any) -> None:
        original(self)
        run.boundary()

    handle._run = _run
    try:
        yield
    finally:
        handle._run = original


ACTIONS = [
    "close", "cancel", "interrupt", "error", "loss", "goodbye", "garbage", "down", "silent", "announce", "retry",
    "request", "wait", "subscribe", "unsubscribe", "watch", "unwatch", "stall", "collect", "fork",
]  # fmt: skip
PROTOCOLS = ["5.1-MIB", "5.0-M", "4"]
PLANS = st.lists(st.tuples(st.integers(0, 220), st.sampled_from(ACTIONS), st.integers(0, 31)), max_size=8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the client says in the log is a boundary, and not for people."""
    logger = logging.getLogger("katcp_tornado")
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
        yield
    logger.level, logger.propagate = before


@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PROTOCOLS), PLANS)
def test_whatever_happens_in_between(protocol: str, plan: Plan) -> None:
    Run(protocol, plan).go()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_in_which_nothing_happens(protocol: str) -> None:
    """Has as many boundaries as the plans are for, more or less."""
    assert 100 < Run(protocol, []).go() < 250
