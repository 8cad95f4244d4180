"""The life of a client: every public call against every fault, in any order, on virtual time.

A hypothesis state machine does what an application, a device and a network may do, and after each step looks
whether everything still fits together: what the client tells its listeners, the Futures that it has handed out, the
figures that it keeps, what the device has executed, and what is on the loop.

``KATCP_TORNADO_LIFE_STEPS`` makes it a longer run, of so many steps, other ones each time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import itertools
import logging
import math
import os
import random
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tornado import gen
from tornado.concurrent import Future
from tornado.iostream import StreamClosedError
from tornado.netutil import Resolver

from katcp_tornado import (
    Backoff,
    Client,
    ClientClosed,
    ConnectionLost,
    FailReply,
    InvalidReply,
    KatcpError,
    Message,
    NotConnected,
    ProtocolFlags,
    Reading,
    ReplyTooLarge,
    RequestTimeout,
    SensorInfo,
    SensorStatus,
    SensorWatcher,
    State,
    Subscription,
    SyncState,
    WaitTimeout,
    WriteBufferFull,
)
from katcp_tornado.connection.link import Link
from katcp_tornado.connection.states import TRANSITIONS
from katcp_tornado.testing import (
    Banner,
    Behaviour,
    Connection,
    Deaf,
    Delay,
    Disconnect,
    Drip,
    Drop,
    EndlessLine,
    Fail,
    FakeDevice,
    Partial,
    Raw,
    RequestContext,
    Reset,
    Silent,
    Stall,
    Version,
    VirtualTimeLoop,
)

#: Steps that the ordinary run takes at least; the machine stops an example after STEPS of them.
TOTAL, STEPS = 10_000, 80
#: A deadline may be this late, in seconds: see `Deadlines`.
LATE = 0.01

#: How often the loop turns after a step.
IDLE = -1
TURNS = st.sampled_from([0, 0, 1, 2, IDLE, IDLE])

ATTEMPT = (State.CONNECTING, State.NEGOTIATING)
KINDS = ("state", "connected", "disconnected", "failed_connect")
PROTOCOLS = ("5.1-MIB", "5.0-MI", "5.0-M", "5.0", "5.1-I", "4")


class Late(Behaviour):
    """Sends its versions late, and the replies before them, if it is asked before: some clients do not wait."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def greet(self, connection: Connection) -> None:
        connection.call_later(self._seconds, connection.say, connection.banner())


class Refuse(Behaviour):
    """Executes the request, and refuses it with this code; which request that was can still be told."""

    def __init__(self, code: str) -> None:
        self._code = code

    def reply(self, context: RequestContext, reply: Message) -> None:
        arguments = [*context.message.arguments[-1:], context.connection.number]
        context.connection.send(context.make_reply(self._code, *arguments))


class Reject(Behaviour):
    """Does not execute the request, and refuses it with this code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def receive(self, context: RequestContext) -> None:
        context.connection.send(context.make_reply(self._code, "not now"))


GARBAGE = (
    b"#part-of-a-li",  # what comes next is lost with it
    b"#garbage ",
    b"\0\x80\xff\xfe\n",
    b"\n\r\n\r\r",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"?echo are-you-there\n",
    b"!echo[2147483647] ok forged 0\n",
    b"#count[2147483647] 0 forged\n",
    b"!count[0] ok forged\n",
    b"!never-asked ok forged 0\n",
    b"#version-connect\n#version-connect katcp-protocol\n",
    b"#version-connect katcp-protocol 5.0-M\n",
    b"#version-connect katcp-protocol 6.0-M\n",
    b"#version-connect katcp-protocol 5.1-MIB\n",
    b"#version-connect katcp-device x y\n#version x\n#build-state x\n",
    b"#disconnect so\\_long\n#tick\n",
    b"#tick x\n#tick 1 2 3\n",
    b"#long " + b"x" * 12_000,
    b"#long " + b"x" * 12_000 + b"\n",
)

CONNECTION_FAULTS: tuple[Behaviour, ...] = (
    Behaviour(),
    Silent(),
    Silent(after_version=True),
    Stall(),
    Drop(),
    Drop(after_version=True),
    Reset(),
    Reset(after_version=True),
    Disconnect("go away"),
    Disconnect("go away", after_version=False),
    Partial(),
    Partial(20, reset=True),
    *(Raw(data) for data in GARBAGE[:6]),
    *(Raw(data, after_version=True) for data in GARBAGE[:6]),
    EndlessLine(chunk=6000, interval=0.5),
    EndlessLine(chunk=6000, interval=0.5, after_version=True),
    Drip(0.01),
    Drip(0.5),
    Drip(0.02, after_version=True),
    Late(0.04),
    Late(0.04),
    Late(0.4),
    Delay(0.4),
    Delay(20.0),
    Delay(0.4, after_version=True),
    Delay(3.0, after_version=True),
    Deaf(),
    Banner("#version half-of-a-v4-greeting"),
    Banner("#version x", "#build-state y", "#version-connect katcp-protocol 5.0-MI"),
    Banner("#version-connect katcp-device x", "#version-connect katcp-protocol 5.0-M"),
    *(Version(text) for text in (*PROTOCOLS, "6.0", "nonsense")),
)

REQUEST_FAULTS: tuple[Behaviour, ...] = (
    Silent(),
    Stall(),
    Drop(),
    Reset(),
    Disconnect("never ask that"),
    Partial(),
    Partial(0, reset=True),
    *(Raw(data) for data in GARBAGE[:4]),
    EndlessLine(chunk=6000, interval=0.5),
    Drip(0.02),
    Delay(0.03),
    Delay(0.5),
    Delay(4.0),
    Deaf(),
    Refuse("fail"),
    Refuse("invalid"),
    Refuse("odd"),
)

SENSOR_FAULTS = (
    *(fault for fault in REQUEST_FAULTS if not isinstance(fault, Refuse)),
    Reject("fail"),
    Reject("invalid"),
    Reject("odd"),
)

#: The requests that the library makes by itself.
OF_SENSORS = ("sensor-list", "sensor-sampling", "sensor-value")
#: Some of them the device has, some it has not.
SENSORS = tuple(f"s{number}" for number in range(6))
TYPES = ("integer", "float", "string")
STRATEGIES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    *(("auto", ()), ("auto", ()), ("event", ())),
    ("differential", (2,)),  # which not every type has
    ("sometimes", ()),  # which the device does not know
)
#: How the device says that a sensor has changed; not at all is one of them.
NOTICES = (
    *(
        "sensor",
        "sensor",
        "interface-changed sensor-list",
        "interface-changed",
        "device-changed sensor-list",
        "nothing",
    ),
)
#: Those that do as they are told, once they have greeted.
HONEST = (Behaviour, Late, Version)

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"drain_timeout": 0.5},
    {"drain_timeout": None},
    {"watchdog": 2.0, "watchdog_timeout": 1.0},
    {"assume_protocol": ProtocolFlags(5, 1, frozenset("MI"))},
    {"assume_protocol": ProtocolFlags(5, 0, frozenset("M"))},
    {"assume_protocol": ProtocolFlags(5, 1, frozenset("MI")), "late": True},
    {"max_write_buffer": 100, "max_reply": 100},
    {"auto_reconnect": False},
    {"backoff": {"max_failures": 3}},
    {"backoff": {"minimum": 1.0, "stable": 0.0}},
    {"look-up": True},
    {"look-up": True, "connect_timeout": 0.3},
)

ACTIONS = (
    *("raise", "cancelled", "close", "request", "request later", "retry", "listen", "listen no more", "cancel"),
    *("task", "drop", "reset", "stop", "wait"),
    *("subscribe", "unsubscribe", "watch", "watch no more"),
)

GROWING = (
    *("generation", "attempts", "connects", "requests", "replies", "timeouts", "informs"),
    *("bytes_in", "bytes_out", "unmatched_replies", "malformed"),
)

#: What must have happened in a run that means something.
VARIED = {
    *(state.name for state in State),
    *(f"request: {what}" for what in ("reply", "cancelled", "FailReply", "InvalidReply", "NotConnected")),
    *(f"request: {what}" for what in ("ConnectionLost", "ClientClosed", "RequestTimeout")),
    *(f"link lost: {what}" for what in ("DeviceDisconnected", "ConnectionResetError", "LineTooLong", "ClientClosed")),
    *(f"attempt failed: {what}" for what in ("ConnectionRefusedError", "ProtocolError", "ConnectTimeout")),
    *("ticks", "Client.connect", "wait_inform: reached", "wait_connected: WaitTimeout"),
    *(f"wait_synced: {what}" for what in ("reached", "FailReply", "WaitTimeout")),
    *("readings", "subscriptions in sync", "watchers in sync", "on the same link all came right"),
    *(f"watcher: {state.name}" for state in SyncState),
}

#: What has happened, over all examples: a life in which nothing happens proves nothing.
seen: collections.Counter[str] = collections.Counter()


class Loop(VirtualTimeLoop):
    """Remembers the timers of sleeping links."""

    def initialize(self, **kwargs: Any) -> None:  # type: ignore[override]
        super().initialize(**kwargs)
        self.sleeps: list[tuple[Link, Any]] = []

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> object:
        handle: Any = super().call_later(delay, callback, *args, **kwargs)
        if isinstance(getattr(callback, "__self__", None), Link):
            self.sleeps.append((callback.__self__, handle))  # type: ignore[attr-defined]
        return handle

    def asleep(self, link: Link) -> int:
        """How many timers will wake this link."""
        self.sleeps = [(who, handle) for who, handle in self.sleeps if handle._scheduled and not handle.cancelled()]
        return sum(who is link for who, _ in self.sleeps)


class Mischief(Exception):
    """What the callbacks of the test raise."""


class Device(FakeDevice):
    """Its replies end with the token of the request and the number of the connection."""

    def __init__(self) -> None:
        super().__init__()
        #: The connections whose replies need not come in the order of the requests.
        self.unordered: set[int] = set()
        #: Those without ids by which requests with ids have come all the same.
        self.mistaken: set[int] = set()
        self.add_request("echo", self._answer)
        self.add_request("refuse", self._refuse)
        self.add_request("count", self._count)
        self.add_request("nap", self._nap)
        for number, name in enumerate(SENSORS[:4]):
            self.add_sensor(name, TYPES[number % 3], number)

    def take_fault(self, name: str) -> Optional[Behaviour]:
        fault = super().take_fault(name)
        if fault is not None:
            self.unordered.update(connection.number for connection in self.connections)
        return fault

    def _answer(self, context: RequestContext, message: Message, seconds: float = 0.0) -> list[Any]:
        connection = context.connection
        if seconds or type(connection.behaviour) not in HONEST:
            self.unordered.add(connection.number)
        if message.mid is not None and "I" not in connection.protocol.flags:
            self.mistaken.add(connection.number)
        return [*message.arguments[-1:], connection.number]

    def _refuse(self, context: RequestContext, message: Message) -> None:
        raise Fail(*self._answer(context, message))

    def _count(self, context: RequestContext, message: Message) -> list[Any]:
        for i in range(int(message.arguments[0])):
            context.inform(i, message.arguments[-1])
        return self._answer(context, message)

    def _nap(self, context: RequestContext, message: Message) -> Future[Any]:
        future: Future[Any] = self.make_future()
        seconds = float(message.arguments[0])
        context.connection.call_later(seconds, future.set_result, self._answer(context, message, seconds))
        return future


class Directory(Resolver):
    """Knows the device, among other things, after a while, or not at all."""

    def initialize(self, rng: random.Random, good: tuple[str, int], bad: list[tuple[str, int]]) -> None:
        self.rng = rng
        self.good = good
        self.bad = bad

    async def resolve(self, host: str, port: int, family: Any = socket.AF_UNSPEC) -> list[tuple[int, Any]]:
        delay = self.rng.choice([0.0, 0.0, 0.2, 1.0, 100.0])
        if delay:
            await asyncio.sleep(delay)
        if self.rng.random() < 0.2:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        addresses = self.rng.sample(self.bad, self.rng.randrange(len(self.bad) + 1))
        return [(socket.AF_INET, address) for address in [*addresses, self.good]]


class Ear:
    """Listens to everything, and knows what must come next."""

    def __init__(self, client: Client, flaws: list[str], before: Optional[Ear] = None) -> None:
        self.client = client
        self.flaws = flaws
        self.before = before
        self.from_birth = client.stats.attempts == 0
        self.count = collections.Counter[str]()
        self.events = 0
        self.state: Optional[State] = State.CONNECTING if self.from_birth else None
        self.last: Optional[tuple[State, State]] = None
        self.due: Optional[str] = None
        self.deaf = False
        client.add_state_callback(self.moved)
        client.add_connected_callback(self.connected)
        client.add_disconnected_callback(self.disconnected)
        client.add_failed_connect_callback(self.failed)

    def remove(self) -> None:
        self.client.remove_state_callback(self.moved)
        self.client.remove_connected_callback(self.connected)
        self.client.remove_disconnected_callback(self.disconnected)
        self.client.remove_failed_connect_callback(self.failed)

    def moved(self, old: State, new: State) -> None:
        if self.due is not None:
            self.flaws.append(f"{self.due} was never heard, and now {old.name} to {new.name}")
        if self.state not in (None, old) or new not in TRANSITIONS[old]:
            self.flaws.append(f"{old.name} to {new.name} after {self.state}")
        self.state, self.last = new, (old, new)
        if new is State.CONNECTED:
            self.due = "connected"
        elif old is State.CONNECTED:
            self.due = "disconnected"
        elif old in ATTEMPT and new in (State.SLEEPING, State.CLOSED):
            closed = new is State.CLOSED and isinstance(self.client.last_exc, ClientClosed)
            self.due = None if closed else "failed_connect"
        self.hear(f"{old.name}-{new.name}", None)

    def connected(self) -> None:
        self.hear("connected", "connected")

    def disconnected(self) -> None:
        self.hear("disconnected", "disconnected")

    def failed(self, exc: BaseException) -> None:
        if isinstance(exc, (StreamClosedError, ClientClosed)) or not isinstance(exc, (OSError, KatcpError)):
            self.flaws.append(f"an attempt failed of {exc!r}")
        seen[f"attempt failed: {type(exc).__name__}"] += 1
        self.hear("failed_connect", "failed_connect")

    def hear(self, what: str, kind: Optional[str]) -> None:
        client = self.client
        self.events += 1
        self.count[what] += 1
        if self.deaf:
            self.flaws.append(f"{what} was heard after the callbacks were removed")
        if kind is not None:
            if self.due != kind:
                self.flaws.append(f"{kind} was heard, and due was {self.due}")
            self.due = None
        if self.before is not None and self.events != self.before.events:
            self.flaws.append(f"{what}: listeners hear in another order than they were registered in")
        if client.is_connected is not (client.state is State.CONNECTED):
            self.flaws.append(f"{what}: is_connected is {client.is_connected} in {client.state.name}")
        if client.state in (State.SLEEPING, State.CLOSED) and client.last_exc is None:
            self.flaws.append(f"{what}: no cause in {client.state.name}")
        if client.state is State.CONNECTED and client.last_exc is not None:
            self.flaws.append(f"{what}: connected, and the cause is {client.last_exc!r}")


class Mirror(SensorWatcher):
    """Looks whether everything is as it is told, and knows what it wants."""

    def __init__(self, life: Life, wanted: tuple[str, ...]) -> None:
        super().__init__(life.client, filter=lambda info: info.name in wanted, rename=lambda name: f"my-{name}")
        self.life = life
        self.wanted = wanted
        self.heard: SyncState = SyncState.DISCONNECTED

    def sensor_added(self, name: str, info: SensorInfo) -> Any:
        self.note(name in self.sensors and self.sensors[name].info is info, f"{name} was added")
        return self.life.mischief("hook")

    def sensor_removed(self, name: str) -> Any:
        self.note(name not in self.sensors, f"{name} was removed")
        return self.life.mischief("hook")

    def sensor_updated(self, name: str, reading: Reading) -> Any:
        self.note(self.sensors[name].reading is reading, f"{name} was updated")
        self.life.read(reading)
        return self.life.mischief("hook")

    def state_updated(self, state: SyncState) -> Any:
        seen[f"watcher: {state.name}"] += 1
        self.note(state is self.state is not self.heard, f"{self.heard} to {state} in {self.state}")
        self.heard = state
        return self.life.mischief("hook")

    def note(self, true: bool, what: str) -> None:
        if not true:
            self.life.flaws.append(f"{what}, which is not so: {dict(self.sensors)}")


class Asked:
    """A Future that was handed out, and what it may become."""

    def __init__(self, client: Client, what: str, make: Callable[[Asked], Any], timeout: Optional[float]) -> None:
        self.client = client
        self.what = what
        self.token = b""
        self.heard: list[Message] = []
        self.on_inform = False
        self.wrapped = False
        #: What it says that it waits for is so; None if that cannot be seen.
        self.reached: Optional[Callable[[], bool]] = None
        #: That of the connection that it was made on; None if there was none.
        self.generation = client.stats.generation if client.is_connected else None
        loop = client.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.deadline = None if timeout is None else loop.time() + timeout
        self.future = make(self)
        #: Where it waits; None if it was settled at once.
        self.entry: Any = None
        for entry in client._link._waiting():
            if self.future in (entry, getattr(entry, "future", None)):
                self.entry = entry

    @property
    def sent(self) -> bool:
        return self.entry is not None and self.entry.sent

    def __repr__(self) -> str:
        return f"<{self.what} {self.token.decode()}>"


#: Seconds within which an announced change is known: the brake, a question that is lost, a round of sensors set again.
SOON = 40.0


def in_sync(thing: Any) -> bool:
    """Whether a subscription, or a watcher, says that it is."""
    return thing.state is SyncState.SYNCED if isinstance(thing, SensorWatcher) else bool(thing.is_synced)


class Life(RuleBasedStateMachine):
    """One example: a device, and the clients that live with it, one after the other."""

    def __init__(self, errors: list[str], flaws: list[str], bad: list[tuple[str, int]]) -> None:
        super().__init__()
        self.errors = errors
        self.flaws = flaws
        self.bad = bad
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.io_loop = Loop()
        self.loop: Any = self.io_loop.asyncio_loop
        self.loop.set_exception_handler(lambda _, context: errors.append(f"{context}"))
        self.device = Device()
        self.device.start()
        self.rng = random.Random(1)
        self.serial = itertools.count(1)
        self.client: Client
        self.ears: list[Ear] = []
        self.pending: list[Asked] = []
        self.wrappers: list[Future[Any]] = []
        self.intruders: list[socket.socket] = []
        self.plans: dict[str, collections.deque[str]] = {}
        self.dirty = False  # the device has sent what spoils its next message
        self.steps_of_client = 0
        self.requests_of_the_dead = 0
        self.executed: dict[bytes, int] = {}
        self.executions = 0
        self.owed: dict[Any, float] = {}  # what was given up and waits for its late reply, and since when
        self.unsendable: set[bytes] = set()  # tokens of requests of which it was said that they were not sent
        self.links: dict[tuple[int, int], int] = {}  # from client and generation to the number of the connection
        self.generation_of: dict[bytes, tuple[int, int]] = {}
        self.lives = 0
        self.last_figures: dict[str, Any] = {}
        self.subscriptions: list[Subscription] = []
        self.watchers: list[Mirror] = []
        # From the number of a connection to the sensors that have changed, and by when that will be known.
        self.unsaid: dict[int, dict[str, float]] = {}
        self.small = False  # the client takes no answer of many sensors
        self.quiet = False  # nothing is under way between client and device

    # Doing

    def go(self, turns: int) -> None:
        """A step is over; perhaps the loop turns a few times, or until nothing can happen without time passing."""
        seen["steps"] += 1
        self.steps_of_client += 1
        self.quiet = turns == IDLE
        if turns == IDLE:
            self.io_loop.run_sync(self.io_loop.idle)
            return
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def make(self, options: dict[str, Any]) -> None:
        options = dict(options)
        self.small = "max_reply" in options
        backoff = {"first": 0.5, "maximum": 4.0, "random": self.rng, **options.pop("backoff", {})}
        # Then what was assumed is used for a while, before the device says what it speaks.
        self.device.behaviour = Late(0.04) if options.pop("late", False) else Behaviour()
        host = self.device.host
        if options.pop("look-up", False):
            host = "device.test"
            options["resolver"] = Directory(self.rng, (self.device.host, self.device.port), self.bad)
        options = {
            "connect_timeout": 3.0,
            "handshake_timeout": 4.0,
            "request_timeout": 8.0,
            "drain_timeout": 6.0,
            "limit": 10_000,
            **options,
        }
        self.client = Client(host, self.device.port, backoff=Backoff(**backoff), **options)
        self.lives += 1
        self.steps_of_client = 0
        self.last_figures = {}
        self.ears = [Ear(self.client, self.flaws)]
        self.plans = {kind: collections.deque() for kind in (*KINDS, "inform", "reading", "hook")}
        self.client.add_state_callback(lambda old, new: self.mischief("state"))
        self.client.add_connected_callback(lambda: self.mischief("connected"))
        self.client.add_disconnected_callback(lambda: self.mischief("disconnected"))
        self.client.add_failed_connect_callback(lambda exc: self.mischief("failed_connect"))
        self.client.add_inform_callback("tick", self.ticked)
        if "assume_protocol" not in options:
            self.client.add_inform_callback("count", self.strayed)
        self.ears.append(Ear(self.client, self.flaws, before=self.ears[0]))
        self.subscriptions, self.watchers = [], []

    def ticked(self, number: int) -> Any:
        """The inform says by which connection the device has sent it."""
        seen["ticks"] += 1
        if self.client.state not in (State.NEGOTIATING, State.CONNECTED):
            self.flaws.append(f"#tick has come in {self.client.state.name}")
        self.came_by((self.lives, self.client.stats.generation), number, "#tick")
        return self.mischief("inform")

    def strayed(self, message: Message) -> None:
        """The inform of a request, given up or not, is not an asynchronous one: without ids, its name says so."""
        protocol = self.client.protocol
        if protocol is not None and not protocol.supports("I"):
            self.flaws.append(f"{message} was taken for an asynchronous inform")

    def came_by(self, link: tuple[int, int], number: int, what: object) -> None:
        """What belongs to this link of the client has gone by this connection of the device: always the same one."""
        if self.links.setdefault(link, number) != number:
            self.flaws.append(f"{what} of connection {self.links[link]} has gone by connection {number}")
        elif any((other < link) is not (self.links[other] < number) for other in self.links if other != link):
            self.flaws.append(f"{what} has gone by connection {number}, in {link} of {self.links}")

    def mischief(self, kind: str) -> Any:
        """What a callback does, if anything was planned."""
        plans = self.plans[kind]
        return self.act(plans.popleft()) if plans else None

    def act(self, action: str, own: Optional[Asked] = None) -> Any:
        seen[f"in a callback: {action}"] += 1
        if action == "raise":
            raise Mischief
        if action == "cancelled":
            raise asyncio.CancelledError
        if action == "close":
            self.client.close()
        elif action == "request":
            self.ask("echo")
        elif action == "request later":
            self.ask("echo", wait=True)
        elif action == "retry":
            self.client.retry_now()
        elif action == "listen":
            self.ears.append(Ear(self.client, self.flaws))
        elif action == "listen no more":
            self.unlisten()
        elif action == "cancel":
            self.cancel_one(0 if own is None or own not in self.pending else self.pending.index(own))
        elif action == "task":
            return self.task()
        elif action in ("drop", "reset"):
            self.device.drop_all(reset=action == "reset")
        elif action == "stop":
            self.device.stop()
        elif action == "wait":
            self.wait_for("connected", None)
            self.wait_for("disconnected", 0.05)
        elif action == "subscribe":
            self.subscribe(self.rng.sample(SENSORS, 2), *self.rng.choice(STRATEGIES))
        elif action == "unsubscribe":
            self.unsubscribe(self.rng.randrange(9))
        elif action == "watch":
            self.watch(SENSORS[self.rng.randrange(3) :])
        elif action == "watch no more":
            self.unwatch(self.rng.randrange(9))
        return None

    async def task(self) -> None:
        """What a callback that is a coroutine does."""
        with contextlib.suppress(KatcpError):
            await self.ask("echo", wait=True).future
            await self.ask("echo").future
            seen["tasks that ended well"] += 1

    def ask(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = 8.0,
        wait: bool = False,
        raw: bool = False,
        on_inform: Optional[str] = None,
    ) -> Asked:
        """Make a request with a token of its own. *on_inform* is what that callback does, "" for nothing."""
        token = b"t%d" % next(self.serial)

        def make(asked: Asked) -> Any:
            def heard(message: Message) -> Any:
                asked.heard.append(message)
                return self.act(on_inform, asked) if on_inform else None

            asked.token = token
            asked.on_inform = on_inform is not None
            if asked.generation is not None:
                self.generation_of[token] = (self.lives, asked.generation)
            # The client's own default is what these clients are made with.
            options: dict[str, Any] = {} if timeout == 8.0 else {"timeout": timeout}
            method = self.client.request_raw if raw else self.client.request
            return method(
                name, *args, token, wait_connected=wait, on_inform=None if on_inform is None else heard, **options
            )

        asked = Asked(self.client, name, make, timeout)
        self.pending.append(asked)
        return asked

    def wait_for(self, what: str, timeout: Optional[float], predicate: Optional[str] = None) -> None:
        def wanted(message: Message) -> bool:
            if predicate:
                self.act(predicate)
            return int(message.arguments[0]) % 2 == 0  # raises for some

        def make(_: Asked) -> Any:
            if what == "inform":
                return self.client.wait_inform("tick", None if predicate is None else wanted, timeout)
            return getattr(self.client, f"wait_{what}")(timeout)

        self.pending.append(Asked(self.client, f"wait_{what}", make, timeout))

    def subscribe(
        self, names: list[str], strategy: str, params: tuple[Any, ...], type: Optional[type] = None
    ) -> Subscription:
        def heard(reading: Reading) -> Any:
            self.read(reading)
            return self.mischief("reading")

        subscription = self.client.subscribe(names, heard, strategy=strategy, params=params, type=type)
        self.subscriptions.append(subscription)
        if len(self.subscriptions) > 5:
            self.unsubscribe(0)
        return subscription

    def unsubscribe(self, index: int) -> None:
        if self.subscriptions:
            self.subscriptions.pop(index % len(self.subscriptions)).cancel()

    def watch(self, wanted: tuple[str, ...]) -> None:
        if len(self.watchers) < 2:
            self.watchers.append(Mirror(self, wanted))
            self.client.add_sensor_watcher(self.watchers[-1])

    def unwatch(self, index: int) -> None:
        if self.watchers:
            watcher = self.watchers.pop(index % len(self.watchers))
            self.client.remove_sensor_watcher(watcher)
            assert watcher.sensors == {}

    def read(self, reading: Reading) -> None:
        """A reading has come."""
        seen["readings"] += 1
        if not self.client.is_connected and reading.status is not SensorStatus.UNREACHABLE:
            self.flaws.append(f"{reading} has come in {self.client.state.name}")

    def wait_synced(self, index: int, timeout: Optional[float]) -> None:
        things = [*self.subscriptions, *self.watchers]
        if things:
            thing = things[index % len(things)]
            self.pending.append(Asked(self.client, "wait_synced", lambda _: thing.synced(timeout), timeout))  # type: ignore[attr-defined]
            self.pending[-1].reached = lambda: in_sync(thing)

    def notice(self, name: str, how: str) -> None:
        """Say that a sensor has changed, in one way or another; then it will be known."""
        for connection in self.device.connections:
            unsaid = self.unsaid.setdefault(connection.number, {})
            unsaid[name] = math.inf
            if how == "sensor":
                connection.inform("interface-changed", "sensor", name, "modified")
                unsaid[name] = self.loop.time() + SOON
            elif how != "nothing":
                connection.inform(*how.split())
                unsaid.update(dict.fromkeys(unsaid, self.loop.time() + SOON))

    def cancel_one(self, index: int) -> None:
        # Older versions of Tornado log an error when what with_timeout() waits for is cancelled.
        candidates = [asked for asked in self.pending if not asked.wrapped]
        if candidates:
            candidates[index % len(candidates)].future.cancel()

    def unlisten(self) -> None:
        if len(self.ears) > 2:
            ear = self.ears.pop()
            ear.remove()
            self.loop.call_soon(setattr, ear, "deaf", True)  # the event of this moment may still be heard

    # Steps

    @initialize(options=st.sampled_from(OPTIONS), protocol=st.sampled_from(PROTOCOLS), turns=TURNS)
    def begin(self, options: dict[str, Any], protocol: str, turns: int) -> None:
        self.device.protocol = protocol
        self.make(options)
        self.go(turns)

    @precondition(lambda self: self.client.state is State.CLOSED)
    @rule(options=st.sampled_from(OPTIONS), turns=TURNS)
    def another_client(self, options: dict[str, Any], turns: int) -> None:
        self.succeed(options)
        self.go(turns)

    def succeed(self, options: dict[str, Any]) -> None:
        self.io_loop.run_sync(self.client.wait_closed)
        self.check()
        assert not self.pending
        self.requests_of_the_dead += self.client.stats.requests
        self.count_losses()
        self.make(options)

    @rule(seconds=st.sampled_from([0, 0.05, 1, 3, 30]))
    def time_passes(self, seconds: float) -> None:
        self.io_loop.run_sync(lambda: gen.sleep(seconds))
        self.go(0)

    @rule()
    def all_is_well(self) -> None:
        if self.client.state is State.CLOSED:
            self.succeed({})
        self.device.start()
        self.client.retry_now()
        self.io_loop.run_sync(lambda: gen.sleep(0.1))
        self.go(0)

    @rule(
        name=st.sampled_from(["echo", "echo", "refuse", "nonsense", "large"]),
        timeout=st.sampled_from([0, 0.02, 1, 8.0, None]),
        wait=st.booleans(),
        raw=st.booleans(),
        turns=TURNS,
    )
    def request(self, name: str, timeout: Optional[float], wait: bool, raw: bool, turns: int) -> None:
        if name == "large":
            self.ask("echo", b"x" * 200, timeout=timeout, wait=wait, raw=raw)
        else:
            self.ask(name, timeout=timeout, wait=wait, raw=raw)
        self.go(turns)

    @rule(number=st.sampled_from([2, 3, 5, 12]), timeout=st.sampled_from([0.02, 8.0]), wait=st.booleans(), turns=TURNS)
    def requests(self, number: int, timeout: float, wait: bool, turns: int) -> None:
        for i in range(number):
            self.ask("echo" if i % 4 else "count", *([] if i % 4 else [i]), timeout=timeout, wait=wait)
        self.go(turns)

    @rule(
        count=st.sampled_from([0, 1, 3, 20]),
        on_inform=st.sampled_from([None, None, "", *ACTIONS]),
        wait=st.booleans(),
        turns=TURNS,
    )
    def request_with_informs(self, count: int, on_inform: Optional[str], wait: bool, turns: int) -> None:
        self.ask("count", count, wait=wait, on_inform=on_inform)
        self.go(turns)

    @rule(seconds=st.sampled_from([0.03, 0.5, 5]), timeout=st.sampled_from([0.02, 1, 8.0, None]), wait=st.booleans())
    def slow_request(self, seconds: float, timeout: Optional[float], wait: bool) -> None:
        self.ask("nap", seconds, timeout=timeout, wait=wait)
        self.ask("nap", 0, wait=wait)
        self.go(IDLE if wait else 0)

    @precondition(lambda self: self.pending)
    @rule(
        index=st.integers(0, 20),
        how=st.sampled_from(["cancel", "cancel", "with_timeout"]),
        seconds=st.sampled_from([0, 0.02, 1]),
        turns=TURNS,
    )
    def give_up(self, index: int, how: str, seconds: float, turns: int) -> None:
        if how == "cancel":
            self.cancel_one(index)
        else:
            asked = self.pending[index % len(self.pending)]
            asked.wrapped = True
            quiet = (KatcpError, OSError, ValueError, IndexError, Mischief)
            timeout = dt.timedelta(seconds=seconds)
            wrapper: Any = gen.with_timeout(timeout, asked.future, quiet_exceptions=quiet)
            self.wrappers.append(wrapper)
        self.go(turns)

    @rule(
        what=st.sampled_from(["connected", "disconnected", "closed", "inform", "inform"]),
        timeout=st.sampled_from([None, None, 0, 0.02, 1]),
        predicate=st.sampled_from([None, "", "raise", "close", "request", "reset"]),
        then=st.sampled_from([None, None, "close", "request", "request later", "retry", "cancel", "reset"]),
        turns=TURNS,
    )
    def wait(
        self, what: str, timeout: Optional[float], predicate: Optional[str], then: Optional[str], turns: int
    ) -> None:
        self.wait_for(what, timeout, predicate)
        if then is not None:
            self.pending[-1].future.add_done_callback(lambda _: self.act(then))
        self.go(turns)

    @rule(down=st.booleans(), turns=TURNS)
    def retry_now(self, down: bool, turns: int) -> None:
        if down:
            self.device.stop()
        self.client.retry_now()
        self.go(turns)

    @rule(more=st.booleans(), turns=TURNS)
    def listen(self, more: bool, turns: int) -> None:
        if more:
            self.ears.append(Ear(self.client, self.flaws))
        else:
            self.unlisten()
        for kind in KINDS:
            with pytest.raises(ValueError, match=kind):
                getattr(self.client, f"remove_{kind}_callback")(self.unlisten)
        with pytest.raises(ValueError, match="tick"):
            self.client.remove_inform_callback("tick", self.unlisten)
        self.go(turns)

    @rule(
        kind=st.sampled_from([*KINDS, "inform", "reading", "hook"]),
        actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3),
    )
    def plan_mischief(self, kind: str, actions: list[str]) -> None:
        self.plans[kind].extend(actions)
        self.go(0)

    @rule(what=st.sampled_from(["start", "start", "bounce", "stop", "halt", "kill"]), turns=TURNS)
    def start_or_stop(self, what: str, turns: int) -> None:
        if what in ("stop", "bounce"):
            self.device.stop()
        elif what == "halt":
            self.device.stop(reason="the device halts")
        elif what == "kill":
            self.device.kill()
        if what in ("start", "bounce"):
            self.device.start()
        self.go(turns)

    @rule(
        reset=st.booleans(),
        reason=st.sampled_from([None, None, "the device is tired"]),
        protocol=st.sampled_from(PROTOCOLS),
        turns=TURNS,
    )
    def drop(self, reset: bool, reason: Optional[str], protocol: str, turns: int) -> None:
        """The next connection may speak another protocol."""
        self.device.protocol = protocol
        self.device.drop_all(reset=reset, reason=reason)
        self.go(turns)

    @rule(
        faults=st.lists(st.sampled_from(CONNECTION_FAULTS), min_size=1, max_size=3),
        then=st.sampled_from(["nothing", "a new link", "a new link"]),
    )
    def next_connections(self, faults: list[Behaviour], then: str) -> None:
        self.dirty = self.dirty or any(isinstance(fault, (Raw, EndlessLine)) for fault in faults)
        self.device.script(*faults)
        if then == "a new link":
            self.device.start()
            self.device.drop_all()
            self.io_loop.run_sync(self.io_loop.idle)
            self.client.retry_now()
        self.go(0 if then == "nothing" else IDLE)

    @rule(
        name=st.sampled_from(["echo", "echo", "count", "nap", "refuse", "watchdog"]),
        faults=st.lists(st.sampled_from(REQUEST_FAULTS), min_size=1, max_size=2),
        ask=st.booleans(),
    )
    def next_requests(self, name: str, faults: list[Behaviour], ask: bool) -> None:
        self.dirty = self.dirty or any(isinstance(fault, (Raw, EndlessLine)) for fault in faults)
        self.device.on_request(name, *faults)
        if ask and name == "echo":
            self.ask("echo", timeout=1, wait=True)
        self.go(IDLE if ask else 0)

    @rule(turns=TURNS)
    def inform_all(self, turns: int) -> None:
        for connection in self.device.connections:
            for _ in range(3):  # in one chunk: a callback may end the link in the midst of it
                connection.inform("tick", connection.number)
        self.device.inform_all("nobody-listens", 1)
        self.go(turns)

    @rule(data=st.sampled_from(GARBAGE), turns=TURNS)
    def garbage(self, data: bytes, turns: int) -> None:
        self.dirty = True
        self.device.send_raw(data)
        self.go(turns)

    @rule(
        names=st.lists(st.sampled_from(SENSORS), min_size=0, max_size=4),
        strategy=st.sampled_from(STRATEGIES),
        type=st.sampled_from([None, None, bytes]),
        synced=st.booleans(),
        turns=TURNS,
    )
    def subscribes(
        self, names: list[str], strategy: tuple[str, tuple[Any, ...]], type: Optional[type], synced: bool, turns: int
    ) -> None:
        self.subscribe(names, *strategy, type=type)
        if synced:
            self.wait_synced(len(self.subscriptions) - 1, None)
        self.go(turns)

    @rule(index=st.integers(0, 9), again=st.booleans(), turns=TURNS)
    def unsubscribes(self, index: int, again: bool, turns: int) -> None:
        self.unsubscribe(index)
        if again:
            self.subscribe([SENSORS[0], SENSORS[5]], "auto", ())
        self.go(turns)

    @rule(more=st.booleans(), first=st.integers(0, 2), turns=TURNS)
    def watches(self, more: bool, first: int, turns: int) -> None:
        if more:
            self.watch(SENSORS[first:])
        else:
            self.unwatch(first)
        self.go(turns)

    @rule(index=st.integers(0, 9), timeout=st.sampled_from([None, 0, 0.02, 5]), turns=TURNS)
    def waits_until_synced(self, index: int, timeout: Optional[float], turns: int) -> None:
        self.wait_synced(index, timeout)
        self.go(turns)

    @rule(
        name=st.sampled_from(SENSORS),
        type_name=st.sampled_from([*TYPES, None]),
        notice=st.sampled_from(NOTICES),
        turns=TURNS,
    )
    def sensor_changes(self, name: str, type_name: Optional[str], notice: str, turns: int) -> None:
        """It comes, goes, or becomes another one of the same name."""
        if type_name is not None:
            self.device.add_sensor(name, type_name, self.rng.randrange(10))
        elif name in self.device.sensors:
            self.device.remove_sensor(name)
        self.notice(name, notice)
        self.go(turns)

    @rule(value=st.integers(0, 9), status=st.sampled_from(["nominal", "nominal", "warn", "failure"]), turns=TURNS)
    def values_change(self, value: int, status: str, turns: int) -> None:
        for name in self.device.sensors:
            self.device.set_sensor(name, value, status)
        self.go(turns)

    @rule(
        name=st.sampled_from(OF_SENSORS),
        faults=st.lists(st.sampled_from(SENSOR_FAULTS), min_size=1, max_size=2),
        change=st.booleans(),
        turns=TURNS,
    )
    def next_sensor_requests(self, name: str, faults: list[Behaviour], change: bool, turns: int) -> None:
        self.dirty = self.dirty or any(isinstance(fault, (Raw, EndlessLine)) for fault in faults)
        self.device.on_request(name, *faults)
        if change:
            self.notice(SENSORS[0], "interface-changed")
        self.go(turns)

    @precondition(lambda self: self.client.state is not State.CLOSED and not self.small)
    @rule(same=st.booleans())
    def device_is_well(self, same: bool) -> None:
        """Then everything becomes as it was declared; on the same link, after a while."""
        device = self.device
        for plans in self.plans.values():
            plans.clear()
        for name in (*OF_SENSORS, "echo", "count", "nap", "refuse", "watchdog"):
            device.on_request(name)
        device._script.clear()
        device.start()
        connection = self.connection()
        assumed = self.client._link.options.assume_protocol
        if assumed is not None:  # the device must have been right to be taken for that
            device.protocol = str(assumed)
            same = False
        if self.client._link.options.drain_timeout is None:  # what is not answered blocks that link for good
            same = False
        spoken = self.client.protocol
        if connection is not None and spoken is not None:
            speaks = connection.protocol
            if (spoken.major, spoken.flags | {"M"}) != (speaks.major, speaks.flags | {"M"}):  # it has lied
                assert self.dirty or assumed is not None or type(connection.behaviour) not in HONEST
                same = False
        if not same or connection is None or type(connection.behaviour) not in HONEST or connection._paused:
            device.drop_all()
        else:
            for _ in range(2):  # the first one may be lost in what the device has begun to say
                self.notice(SENSORS[0], "interface-changed")
        self.io_loop.run_sync(self.io_loop.idle)
        for _ in range(30):
            if self.client.state in (State.CLOSED, State.CONNECTED):
                break
            self.io_loop.run_sync(lambda: gen.sleep(10))
        if self.connection() is connection:
            # A request that is lost has 8 s; what is refused is tried again within a minute.
            self.io_loop.run_sync(lambda: gen.sleep(150))
        self.go(IDLE)
        if self.client.is_connected and self.connection() is not None:
            if self.connection() is connection:
                seen["on the same link all came right"] += 1
            self.check_desired()

    def check_desired(self) -> None:
        """The device does what is wanted of it, as far as it can, and everybody knows."""
        connection = self.connection()
        assert connection is not None
        wanted: dict[str, str] = {}
        everybody = [*self.subscriptions, *(watcher._mirror for watcher in self.watchers if watcher._mirror)]
        for subscription in sorted(everybody, key=lambda one: one.born, reverse=True):
            names = [name for name in subscription.names if not self.possible(name, subscription.strategy)]
            refused = sorted(name for name in names if name not in wanted)
            assert sorted(subscription.failures) == refused, (subscription, dict(subscription.failures))
            assert subscription.is_synced is (not refused), subscription
            for name in subscription.names:
                if self.possible(name, subscription.strategy):
                    wanted.setdefault(name, subscription.strategy)
                    assert subscription.readings.get(name) is not None or subscription not in self.subscriptions
        assert {name: sampler.strategy for name, sampler in connection.samplers.items()} == wanted
        for watcher in self.watchers:
            assert watcher.state is SyncState.SYNCED, watcher.state
            assert all(sensor.reading is not None for sensor in watcher.sensors.values())

    def possible(self, name: str, strategy: str) -> bool:
        """Whether the device can sample this sensor so."""
        sensor = self.device.sensors.get(name)
        if sensor is None or strategy == "sometimes":
            return False
        return strategy != "differential" or sensor.type_name != "string"

    def connection(self) -> Optional[Connection]:
        """The device's end of the client's link."""
        stream: Any = self.client._link._transport
        if not self.client.is_connected or stream.closed():
            return None
        address = "{}:{}".format(*stream.socket.getsockname()[:2])
        return next((c for c in self.device.connections if c.address == address), None)

    @rule(
        timeout=st.sampled_from([None, 0, 1]),
        how=st.sampled_from(["cancel at once", "cancel soon", "never cancel", "no client"]),
    )
    def another(self, timeout: Optional[float], how: str) -> None:
        """Somebody else connects to the device."""
        if how == "no client":
            if self.device.running and len(self.intruders) < 3:
                self.intruders.append(socket.create_connection((self.device.host, self.device.port)))
        else:
            options = {"auto_reconnect": timeout is not None, "connect_timeout": 1.0, "handshake_timeout": 1.0}
            future = Client.connect(self.device.host, self.device.port, timeout=timeout, **options)  # type: ignore[arg-type]
            self.wrappers.append(future)
            future.add_done_callback(self.connected)
            if how == "cancel soon":
                self.io_loop.run_sync(self.io_loop.idle)
            if how != "never cancel":
                future.cancel()
        self.go(IDLE)

    def connected(self, future: asyncio.Future[Client]) -> None:
        if not future.cancelled() and future.exception() is None:
            seen["Client.connect"] += 1
            future.result().close()

    @precondition(lambda self: self.steps_of_client > 20 or self.client.state in ATTEMPT)
    @rule(how=st.sampled_from(["close", "with", "async with", "twice"]), turns=TURNS)
    def close(self, how: str, turns: int) -> None:
        client = self.client
        if how == "with":
            with client:
                pass
        elif how == "async with":
            self.io_loop.run_sync(self.leave)
        else:
            for _ in range(1 + (how == "twice")):
                client.close()
        assert client.state is State.CLOSED
        assert all(asked.future.done() for asked in self.pending if asked.what != "wait_closed")
        assert self.ears[0].state is State.CLOSED
        self.go(turns)

    async def leave(self) -> None:
        async with self.client:
            pass

    # Looking

    @invariant()
    def check(self) -> None:
        self.check_device()
        self.check_futures()
        self.check_state()
        self.check_figures()
        self.check_sensors()
        for ear in self.ears:
            assert ear.due is None, ear.due
        assert self.flaws == []
        assert self.errors == []
        assert self.device.errors == []

    def check_state(self) -> None:
        client, link = self.client, self.client._link
        state = client.state
        seen[state.name] += 1
        held = {
            name
            for name, thing in (("timer", link._sleep), ("attempt", link._dial), ("stream", link._transport))
            if thing is not None
        }
        if state is State.CLOSED or client.stats.attempts == 0:
            assert held == set()
        else:
            wanted = {State.SLEEPING: "timer", State.CONNECTING: "attempt"}.get(state, "stream")
            assert held == {wanted}
        assert self.io_loop.asleep(link) == (state is State.SLEEPING)
        assert (client.protocol is not None) is client.is_connected
        assert client.is_connected is (state is State.CONNECTED)
        assert (client.stats.next_attempt_in is not None) is (state is State.SLEEPING)
        assert self.ears[0].events == self.ears[1].events
        assert self.ears[0].state is state
        if state is State.CONNECTED:
            assert client.last_exc is None
        elif state in ATTEMPT:
            failed = self.ears[0].count["failed_connect"] + self.ears[0].count["disconnected"]
            assert (client.last_exc is None) is (failed == 0)
        else:
            assert client.last_exc is not None
        assert not isinstance(client.last_exc, StreamClosedError)
        assert state.name in repr(client)
        session = link.session
        if session is not None:
            assert session.alive
            assert len(session._by_mid) <= session._crowd  # of those that were cancelled, so few are kept
            for queue in session._queues.by_name.values():
                first, *others = queue
                assert first.sent
                assert not any(entry.abandoned for entry in others if not entry.sent)  # type: ignore[attr-defined]
        assert not any(request.abandoned for request in link.pending._unsent)
        assert not any(waiter.done() for waiter in link.waiters._all)

    def check_sensors(self) -> None:
        client, session = self.client, self.client._link.session
        if not client.is_connected:
            for thing in self.subscriptions:
                assert not thing.is_synced and not thing.failures
                assert {reading.status for reading in thing.readings.values()} <= {SensorStatus.UNREACHABLE}
            for watcher in self.watchers:
                assert watcher.state in (SyncState.DISCONNECTED, SyncState.CLOSED)
                readings = [sensor.reading for sensor in watcher.sensors.values() if sensor.reading is not None]
                assert {reading.status for reading in readings} <= {SensorStatus.UNREACHABLE}
        assert all(watcher.heard is watcher.state for watcher in self.watchers)
        asking = [entry for entry in session.pending() if not entry.done()] if session is not None else []
        names = [
            name
            for entry in asking
            if entry.name == b"sensor-sampling"
            for name in entry.arguments[0].split(b",")  # type: ignore[attr-defined]
        ]
        assert len(names) == len(set(names)), "two ?sensor-sampling for one sensor"
        connection = self.connection()
        if self.quiet and connection is not None and type(connection.behaviour) in HONEST and not self.dirty:
            unsaid = self.unsaid.get(connection.number, {})
            self.check_synced(connection, {name for name, known in unsaid.items() if known > self.loop.time()})

    def check_synced(self, connection: Connection, unsaid: set[str]) -> None:
        """What is said to be in sync is. Nothing is under way; *unsaid* the device keeps to itself."""
        for subscription in self.subscriptions:
            if subscription.is_synced:
                seen["subscriptions in sync"] += 1
                for name in set(subscription.names) - unsaid:
                    assert name in connection.samplers, (subscription, name)
                    assert name in subscription.readings
        for watcher in self.watchers:
            if watcher.state is SyncState.SYNCED:
                seen["watchers in sync"] += 1
                here = {sensor.info.name: sensor.info.type_name for sensor in watcher.sensors.values()}
                there = {name: self.device.sensors[name].type_name for name in self.device.sensors}
                for name in set(watcher.wanted) - unsaid:
                    assert here.get(name) == there.get(name)
                    assert name not in here or name in connection.samplers

    def check_figures(self) -> None:
        client, heard = self.client, self.ears[0].count
        stats, state = client.stats, client.state
        assert stats.connects == heard["connected"]
        assert sum(stats.disconnects.values()) == heard["disconnected"] == stats.connects - client.is_connected
        ended = stats.connects + heard["failed_connect"]
        if state in ATTEMPT:
            assert stats.attempts == ended + 1 or stats.attempts == 0
        elif state is State.CLOSED and isinstance(client.last_exc, ClientClosed):
            last = self.ears[0].last
            assert last is not None
            # close() may have ended an attempt, perhaps before it had begun.
            assert stats.attempts - ended in {State.CONNECTING: (0, 1), State.NEGOTIATING: (1,)}.get(last[0], (0,))
        else:
            assert stats.attempts == ended
        assert stats.replies <= stats.requests
        assert len(stats.history) == min(10, heard["failed_connect"] + self.lost())
        growing = {name: getattr(stats, name) for name in GROWING}
        assert all(self.last_figures.get(name, 0) <= value for name, value in growing.items())
        self.last_figures = growing
        assert self.executions <= stats.requests + self.requests_of_the_dead

    def count_losses(self) -> None:
        for name, number in self.client.stats.disconnects.items():
            seen[f"link lost: {name}"] += number

    def lost(self) -> int:
        return sum(count for name, count in self.client.stats.disconnects.items() if name != "ClientClosed")

    def check_device(self) -> None:
        """Nothing is executed twice, nor by another connection than it was made on, nor if it was not sent."""
        for number, message in self.device.received:
            self.executions += 1
            if message.name in ("watchdog", *OF_SENSORS):
                continue
            token = message.arguments[-1] if message.arguments else b""
            assert token not in self.executed
            self.executed[token] = number
            if token in self.generation_of:
                self.came_by(self.generation_of[token], number, token)
        self.device.received.clear()

    def check_futures(self) -> None:
        link = self.client._link
        session = link.session
        entries = set(session.pending()) if session is not None else set()
        now = self.loop.time()
        given_up = [entry for entry in entries if entry.abandoned]  # type: ignore[attr-defined]
        self.owed = {entry: self.owed.get(entry, now) for entry in given_up}
        drain = link.options.drain_timeout
        assert drain is None or all(now <= since + drain + LATE for since in self.owed.values())
        still: list[Asked] = []
        for asked in self.pending:
            future: Any = asked.future
            if future.done():
                self.check_settled(asked)
                continue
            still.append(asked)
            assert asked.deadline is None or now <= asked.deadline + LATE, asked
            assert asked.client is self.client
            entry = asked.entry
            assert entry in entries or entry in link.pending._unsent or entry in link.waiters._all, asked
            reached = {"wait_connected": self.client.is_connected, "wait_disconnected": not self.client.is_connected}
            assert not reached.get(asked.what, False), asked
            assert asked.reached is None or not asked.reached(), asked
            if self.client.state is State.CLOSED:
                assert asked.what == "wait_closed"
        self.pending = still
        assert not self.unsendable.intersection(self.executed)

    def check_settled(self, asked: Asked) -> None:
        future: Any = asked.future
        waits = asked.what.startswith("wait_")
        if future.cancelled():
            seen[f"{'wait' if waits else 'request'}: cancelled"] += 1
            if not waits and not asked.sent:
                self.unsendable.add(asked.token)
            return
        error = future.exception()
        if waits:
            self.check_waited(asked, error)
            return
        seen[f"request: {'reply' if error is None else type(error).__name__}"] += 1
        if error is None:
            reply, informs = future.result()
            self.check_reply(asked, reply if isinstance(reply, list) else reply.arguments, informs)
        elif isinstance(error, (FailReply, InvalidReply)):
            self.check_reply(asked, error.reply.arguments, error.informs)
        else:
            assert isinstance(error, KatcpError)
            assert isinstance(
                error, (NotConnected, WriteBufferFull, ConnectionLost, RequestTimeout, ClientClosed, ReplyTooLarge)
            )
            assert error.sent or not asked.sent
            if not error.sent:
                self.unsendable.add(asked.token)
            if isinstance(error, NotConnected):
                assert asked.generation is None
            if isinstance(error, RequestTimeout):
                assert asked.deadline is not None and self.loop.time() >= asked.deadline - LATE
            if isinstance(error, ClientClosed):
                assert asked.client.state is State.CLOSED

    def check_reply(self, asked: Asked, arguments: list[bytes], informs: list[Message]) -> None:
        """It is the reply to this very request, and has come by the connection on which that was made."""
        informs = informs if not asked.on_inform else asked.heard
        if asked.what == "nonsense":
            assert b"unknown request nonsense" in arguments
        elif asked.generation is not None:
            self.came_by(self.generation_of[asked.token], int(arguments[-1]), asked)
        assert all(message.name == asked.what for message in informs)
        if asked.what != "nonsense" and int(arguments[-1]) in self.device.unordered & self.device.mistaken:
            # It was wrongly taken for a device with ids, and so was asked several things of one name at a time. One
            # without ids must answer them in order, and this one did not: nobody can tell one reply from another.
            seen["nobody can tell"] += 1
            return
        assert asked.what == "nonsense" or arguments[-2] == asked.token
        numbers = [int(message.arguments[0]) for message in informs]
        assert all(message.arguments[1] == asked.token for message in informs)
        assert numbers == sorted(set(numbers))
        if not self.dirty and numbers:
            assert numbers == list(range(len(numbers)))

    def check_waited(self, asked: Asked, error: Optional[BaseException]) -> None:
        seen[f"{asked.what}: {'reached' if error is None else type(error).__name__}"] += 1
        if isinstance(error, WaitTimeout):
            assert asked.deadline is not None and self.loop.time() >= asked.deadline - LATE
        elif isinstance(error, (FailReply, InvalidReply)):
            assert asked.what == "wait_synced"
        elif error is not None:
            assert asked.what in ("wait_connected", "wait_inform", "wait_synced")
            of_predicate = asked.what == "wait_inform" and isinstance(error, (Mischief, ValueError, IndexError))
            assert of_predicate or type(error) is type(asked.client.last_exc)
        if asked.what == "wait_closed" and error is None:
            assert asked.client.state is State.CLOSED

    def teardown(self) -> None:
        """Nothing is left of a client that was closed, nor of anything else."""
        try:
            if hasattr(self, "client"):
                self.client.close()
                assert all(asked.future.done() for asked in self.pending if asked.what != "wait_closed")
                self.io_loop.run_sync(lambda: self.client.wait_closed(timeout=0.1))
                self.check()
                assert self.pending == []
                self.count_losses()
                self.device.close()
                for intruder in self.intruders:
                    intruder.close()
                self.io_loop.run_sync(lambda: gen.sleep(2))  # for the timeouts of Client.connect and with_timeout
                assert all(wrapper.done() for wrapper in self.wrappers)
                for wrapper in self.wrappers:
                    assert wrapper.cancelled() or wrapper.exception() is None or True
                assert asyncio.all_tasks(self.loop) == set()
                assert [handle for handle in self.loop._scheduled if not handle.cancelled()] == []
                assert len(self.loop._selector.get_map()) == 1  # with which the loop wakes itself
                self.check()
        finally:
            for intruder in self.intruders:
                intruder.close()
            self.device.close()
            self.io_loop.close(all_fds=True)
        assert len(os.listdir("/proc/self/fd")) == self.descriptors


class Flaws(logging.Handler):
    """The errors that the library logs, but for those that the callbacks of the test have raised."""

    def __init__(self, flaws: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.flaws = flaws
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is None or not issubclass(kind, (Mischief, asyncio.CancelledError)):
            self.flaws.append(self.format(record))


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """The errors that the library logs. It logs much: nobody else is to look at it."""
    found: list[str] = []
    logger, handler = logging.getLogger("katcp_tornado"), Flaws(found)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


@pytest.fixture
def bad_addresses() -> Iterator[list[tuple[str, int]]]:
    """One that refuses every connection, and one that never answers, because its accept queue is full."""
    with contextlib.ExitStack() as stack:
        refuses, ignores = (stack.enter_context(socket.socket()) for _ in range(2))
        refuses.bind(("127.0.0.1", 0))
        ignores.bind(("127.0.0.1", 0))
        ignores.listen(0)
        for _ in range(20):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(ignores.getsockname())
            if not select.select([], [filler], [], 0.05)[1]:
                break
        yield [refuses.getsockname(), ignores.getsockname()]


def test_life(loop_errors: list[str], bad_addresses: list[tuple[str, int]]) -> None:
    seen.clear()
    wanted = os.environ.get("KATCP_TORNADO_LIFE_STEPS")
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
    with listening() as flaws:

        def factory() -> Life:
            loop_errors.clear()
            flaws.clear()
            return Life(loop_errors, flaws, bad_addresses)

        for number in itertools.count(first):
            sys.stdout.write(f"seed {number}\n")
            run_state_machine_as_test(seed(number)(factory), settings=options)  # type: ignore[arg-type]
            if seen["steps"] >= int(wanted or TOTAL):
                break
    for what, count in sorted(seen.items()):
        sys.stdout.write(f"{count:8} {what}\n")
    assert seen["steps"] >= TOTAL or wanted
    assert set(seen) >= VARIED


@pytest.mark.gen_test
async def test_a_late_reply_when_ids_were_assumed_and_are_not_there(io_loop: VirtualTimeLoop) -> None:
    """The version line says that the replies come without ids, when a request with an id was given up already."""
    with FakeDevice("5.0-M") as device:
        device.behaviour = Late(0.2)
        device.on_request("echo", Delay(0.5), Delay(0.8))
        assumed = ProtocolFlags(5, 1, frozenset("I"))
        async with Client(device.host, device.port, assume_protocol=assumed) as client:
            await client.wait_connected()
            first = client.request("echo", "first", timeout=0.1)  # given up before the version line
            second = client.request("echo", "second")
            reply, _ = await second
            assert isinstance(first.exception(), RequestTimeout)
            assert reply == [b"second"]
