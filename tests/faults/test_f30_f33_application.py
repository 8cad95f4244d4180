"""F30 to F33: what the application may do to a client at the wrong moment."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.fault_tools import LONGEST, ScriptedResolver, Witness, blackhole, descriptors, syn_sent
from tornado import gen
from tornado.concurrent import Future
from tornado.ioloop import IOLoop

from katcp_tornado import (
    Client,
    ClientClosed,
    KatcpError,
    Message,
    NotConnected,
    RequestTimeout,
    State,
    WaitTimeout,
)
from katcp_tornado.testing import Behaviour, Connection, Drop, FakeDevice, Silent, Stall, VirtualTimeLoop

STATES = ["fresh", "CONNECTING", "SYN-SENT", "NEGOTIATING", "CONNECTED", "SLEEPING", "CLOSED"]


@pytest.fixture(scope="module")
def hole() -> Iterator[Any]:
    with blackhole() as sock:
        yield sock


@pytest.fixture
def bring(device: FakeDevice, hole: Any, witnessed: Callable[..., Witness]) -> Any:
    """``await bring(name)`` makes a client that is in one of `STATES`."""

    async def bring(name: Any, **options: Any) -> Any:
        if name == "CONNECTING":
            witness = witnessed("device.example", 7147, resolver=ScriptedResolver(None), **options)
        elif name == "SYN-SENT":
            witness = witnessed(*hole.getsockname(), **options)
        else:
            if name == "NEGOTIATING":
                device.behaviour = Silent()
            elif name in ("SLEEPING", "CLOSED"):
                device.behaviour = Drop()
            if name == "CLOSED":
                options["auto_reconnect"] = False
            witness = witnessed(device.host, device.port, **options)
        if name != "fresh":
            await gen.sleep(0.5)
        assert witness.client.state.name == {"fresh": "CONNECTING", "SYN-SENT": "CONNECTING"}.get(name, name)
        return witness

    return bring


def pending_of(client: Client) -> Any:
    """Everything of this client that can be waited for, by name."""
    return {
        "wait_connected": client.wait_connected(),
        "wait_connected in time": client.wait_connected(timeout=1000),
        "wait_disconnected": client.wait_disconnected(),
        "wait_inform": client.wait_inform("never"),
        "request": client.request("sleep", 1000),
        "request 2": client.request("sleep", 1000),
        "request_raw": client.request_raw("sleep", 1000),
        "waiting request": client.request("sleep", 1000, wait_connected=True),
    }


def is_settled(pending: Any, client: Client) -> None:
    """All of them have settled, as is right for a client that was closed."""
    assert [name for name, future in pending.items() if not future.done()] == []
    assert pending["wait_disconnected"].exception() is None
    for name in ("wait_connected", "wait_connected in time", "wait_inform"):
        error = pending[name].exception()
        assert error is None or (isinstance(error, type(client.last_exc)) and error is not client.last_exc)
    for name in ("request", "request 2", "request_raw", "waiting request"):
        assert isinstance(pending[name].exception(), (ClientClosed, NotConnected)), name


# F30

KINDS = ["state", "connected", "disconnected", "failed_connect", "inform"]


def add(client: Client, kind: Any, callback: Any) -> None:
    if kind == "inform":
        client.add_inform_callback("tick", callback)
    else:
        getattr(client, f"add_{kind}_callback")(callback)


def remove(client: Client, kind: Any, callback: Any) -> None:
    if kind == "inform":
        client.remove_inform_callback("tick", callback)
    else:
        getattr(client, f"remove_{kind}_callback")(callback)


async def live(device: FakeDevice, client: Client) -> None:
    """A life in which every kind of callback is called: failed, connected, #tick, disconnected, connected."""
    await client.wait_connected()
    device.inform_all("tick")
    assert (await client.request("echo", "x")).arguments == [b"x"]
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, RecursionError])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gen_test
async def test_f30_callback_raises(
    device: FakeDevice, witnessed: Callable[..., Witness], caplog: pytest.LogCaptureFixture, kind: Any, error: Any
) -> None:
    device.script(Drop())
    witness = witnessed(device.host, device.port)
    calls = []

    def before(*args: Any) -> None:
        calls.append("before")

    def bad(*args: Any) -> None:
        raise error("on purpose")

    def after(*args: Any) -> None:
        calls.append("after")

    for callback in (before, bad, after):
        add(witness.client, kind, callback)
    await live(device, witness.client)
    assert witness.heard == ["failed", "connected", "disconnected", "connected"]
    assert calls == ["before", "after"] * (len(calls) // 2) and calls
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == len(calls) // 2
    assert all(record.name == "katcp_tornado" and record.exc_info[0] is error for record in records)  # type: ignore[index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gen_test
async def test_f30_callback_never_ends(
    device: FakeDevice, witnessed: Callable[..., Witness], caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    device.script(Drop())
    witness = witnessed(device.host, device.port)
    end: Any = Future()
    ended = []

    async def endless(*args: Any) -> None:
        await end
        ended.append(args)

    add(witness.client, kind, endless)
    await live(device, witness.client)
    witness.client.close()
    await witness.client.wait_closed()
    assert ended == []
    end.set_result(None)
    await gen.sleep(0)
    await gen.sleep(0)
    assert ended
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.gen_test
async def test_f30_coroutine_callback_raises(
    device: FakeDevice, witnessed: Callable[..., Witness], caplog: pytest.LogCaptureFixture
) -> None:
    witness = witnessed(device.host, device.port)

    async def bad() -> None:
        await gen.sleep(1)
        raise ValueError("on purpose")

    witness.client.add_connected_callback(bad)
    await gen.sleep(2)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[0] is ValueError  # type: ignore[index]
    assert witness.heard == ["connected"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gen_test
async def test_f30_callback_mutates_the_list(device: FakeDevice, witnessed: Callable[..., Witness], kind: Any) -> None:
    device.script(Drop())
    witness = witnessed(device.host, device.port)
    client = witness.client
    calls = []

    def first(*args: Any) -> None:
        calls.append("first")
        if len(calls) == 1:
            remove(client, kind, first)
            remove(client, kind, second)
            add(client, kind, third)

    def second(*args: Any) -> None:
        calls.append("second")

    def third(*args: Any) -> None:
        calls.append("third")

    add(client, kind, first)
    add(client, kind, second)
    await live(device, client)
    device.inform_all("tick")
    await client.request("watchdog")
    # The list of the first event stays as it was; then the changes count.
    assert calls[:2] == ["first", "second"]
    assert set(calls[2:]) <= {"third"}
    if kind in ("state", "connected", "inform"):  # of the others there is only one
        assert "third" in calls
    with pytest.raises(ValueError):
        remove(client, kind, first)


@pytest.mark.gen_test
async def test_f30_callbacks_steer(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Callable[..., Witness]
) -> None:
    # Ask at once, be impatient, start another client: all legal, from within.
    device.script(Drop())
    witness = witnessed(device.host, device.port)
    client = witness.client
    replies, others = [], []  # type: ignore[var-annotated]

    def connected() -> None:
        replies.append(client.request("echo", "x"))
        if not others:
            others.append(witnessed(device.host, device.port))

    client.add_connected_callback(connected)
    client.add_failed_connect_callback(lambda exc: client.retry_now())
    client.add_disconnected_callback(client.retry_now)
    await live(device, client)
    assert io_loop.now <= 0.21, "attempts keep their distance, and wait for nothing else"
    assert [(await reply).arguments for reply in replies] == [[b"x"], [b"x"]]
    await others[0].client.wait_connected()


@pytest.mark.gen_test
async def test_f30_one_order_for_all(device: FakeDevice, witnessed: Callable[..., Witness]) -> None:
    # A listener that moves the client on does not make another one hear things out of order.
    witness = witnessed(device.host, device.port)
    client = witness.client
    order = []

    def hear(name: Any) -> None:
        client.add_connected_callback(lambda: order.append((name, "connected")))
        client.add_disconnected_callback(lambda: order.append((name, "disconnected")))

    hear("first")
    client.add_connected_callback(client.close)
    hear("last")
    await client.wait_disconnected()
    await gen.sleep(1)
    assert order == [(n, what) for what in ("connected", "disconnected") for n in ("first", "last")]
    assert client.state is State.CLOSED


# F31


@pytest.mark.parametrize("state", STATES)
@pytest.mark.gen_test
async def test_f31_close(io_loop: VirtualTimeLoop, device: FakeDevice, bring: Any, state: Any) -> None:
    witness = await bring(state)
    client = witness.client
    pending = pending_of(client)
    heard, now = list(witness.heard), io_loop.now
    gone = client.wait_closed()
    client.close()
    assert client.state is State.CLOSED
    is_settled(pending, client)
    client.close()
    await gone
    await client.wait_closed()
    assert io_loop.now == now
    assert witness.heard == heard + ["disconnected"] * (state == "CONNECTED")
    assert client.stats.next_attempt_in is None
    await io_loop.idle()
    assert device.connections == []
    attempts, accepted = client.stats.attempts, device.accepted
    device.behaviour = Behaviour()
    client.retry_now()
    await gen.sleep(1000)
    assert (client.stats.attempts, device.accepted) == (attempts, accepted)
    assert client.state is State.CLOSED
    is_settled(pending_of(client), client)
    for what in (client.wait_connected(), client.wait_inform("x")):
        with pytest.raises(type(client.last_exc)):
            await what


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_f31_close_says_what_was_sent(
    device: FakeDevice, witnessed: Callable[..., Witness], protocol: str
) -> None:
    device.protocol = protocol
    client = witnessed(device.host, device.port).client
    later = client.request("echo", wait_connected=True)
    await client.wait_connected()
    await later
    pending = pending_of(client)
    client.close()
    sent = [pending[name].exception().sent for name in ("request", "request 2", "request_raw", "waiting request")]
    assert sent == ([True] * 4 if protocol == "5.1-MIB" else [True, False, False, False])


#: Where close() is called: a kind of callback, or of Future, and which of its calls.
PLACES = [
    ("state", State.NEGOTIATING),
    ("state", State.CONNECTED),
    ("state", State.SLEEPING),
    ("state", State.CONNECTING),
    ("connected", None),
    ("disconnected", None),
    ("failed_connect", None),
    ("inform", None),
    ("inform before the version", None),
    ("on_inform", None),
    ("predicate", None),
    ("future of a request", None),
    ("future of wait_connected", None),
    ("future of wait_disconnected", None),
    ("future of connect", None),
    ("resolver", None),
]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.parametrize(("place", "detail"), PLACES, ids=lambda value: str(value).replace("State.", ""))
@pytest.mark.gen_test
async def test_f31_close_within(
    io_loop: VirtualTimeLoop,
    device: FakeDevice,
    witnessed: Callable[..., Witness],
    place: Any,
    detail: Any,
    protocol: str,
) -> None:
    device.protocol = protocol
    device.script(Drop())
    options = {}
    if place == "resolver":
        resolver = ScriptedResolver([(device.host, device.port)])
        resolve = resolver.resolve
        resolver.resolve = lambda *args: (close(), resolve(*args))[1]  # type: ignore[func-returns-value]
        options["resolver"] = resolver
    witness = witnessed("localhost" if place == "resolver" else device.host, device.port, **options)
    client = witness.client
    closed: list[Any] = []
    pending = {}
    order = []

    def close(*args: Any) -> None:
        if closed:
            return
        pending.update(pending_of(client))
        closed.append(witness.heard.copy())
        client.close()
        assert client.state is State.CLOSED
        client.close()

    def moved(old: Any, new: Any) -> None:
        if new is detail:
            close()

    if place == "state":
        client.add_state_callback(moved)
    elif place == "inform before the version":
        client.add_inform_callback("version-connect", close)
        client.add_inform_callback("early", close)
        device.behaviour = _Early()
    elif place == "inform":
        client.add_inform_callback("tick", close)
    elif place in ("connected", "disconnected", "failed_connect"):
        add(client, place, close)
    elif place == "future of wait_connected":
        client.wait_connected().add_done_callback(close)
    elif place == "future of connect":
        device.script()
    for kind in ("connected", "disconnected", "failed_connect"):
        add(client, kind, lambda *_, kind=kind: order.append(kind))

    def connected() -> None:
        if place == "on_inform":
            client.request("help", on_inform=close)
        elif place == "predicate":
            client.wait_inform("tick", close)
        elif place == "future of a request":
            client.request("echo").add_done_callback(close)
        elif place == "future of wait_disconnected":
            client.wait_disconnected().add_done_callback(close)
        device.connections[-1].write(b"#tick\n#tick\n")

    if place == "future of connect":
        client.close()
        future = Client.connect(device.host, device.port, backoff=LONGEST)
        witness = Witness(future._client)  # type: ignore[arg-type]
        client = witness.client
        future.add_done_callback(close)
    else:
        client.add_connected_callback(connected)
    await gen.sleep(1.5)
    device.drop_all()
    await gen.sleep(1.5)
    assert closed, "the place was never reached"
    assert client.state is State.CLOSED
    is_settled(pending, client)
    await client.wait_closed()
    assert len(witness.heard) - len(closed[0]) <= 2
    witness.check()
    await io_loop.idle()
    assert device.connections == []
    attempts = client.stats.attempts
    await gen.sleep(1000)
    assert client.stats.attempts == attempts
    assert order == [{"failed": "failed_connect"}.get(what, what) for what in witness.heard] or place.endswith(
        "connect"
    )


class _Early(Behaviour):
    def greet(self, connection: Connection) -> None:
        connection.say(b"#early 1\n#early 2\n")
        super().greet(connection)


@pytest.mark.gen_test
async def test_f31_the_rest_of_the_chunk_is_not_looked_at(
    device: FakeDevice, witnessed: Callable[..., Witness]
) -> None:
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    heard = []

    def tick(message: Message) -> None:
        heard.append(message.arguments)
        witness.client.close()

    witness.client.add_inform_callback("tick", tick)
    device.send_raw(b"#tick 1\n#tick 2\n")
    await witness.client.wait_closed()
    assert heard == [[b"1"]]


# F32


class Abandoned:
    """A loop of its own, a device and a client on it, brought to some state; then the loop is closed."""

    def __init__(self, state: Any) -> None:
        self.errors: list[Any] = []
        self.loop = VirtualTimeLoop()
        self.loop.asyncio_loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.device = FakeDevice()
        self.device.start()
        self.hole = blackhole()
        self.client = self.loop.run_sync(lambda: self._bring(state))
        assert self.client.state.name == {"fresh": "CONNECTING", "SYN-SENT": "CONNECTING"}.get(state, state)

    async def _bring(self, state: Any) -> Any:
        device = self.device
        host, port, options = device.host, device.port, {}
        if state == "CONNECTING":
            host, options = "device.example", {"resolver": ScriptedResolver(None)}
        elif state == "SYN-SENT":
            host, port = self.hole.__enter__().getsockname()
        elif state == "NEGOTIATING":
            device.behaviour = Silent()
        elif state in ("SLEEPING", "CLOSED"):
            device.behaviour = Drop()
            options["auto_reconnect"] = state == "SLEEPING"
        client = Client(host, port, **options)
        if state != "fresh":
            await gen.sleep(0.05)
        return client

    def close_loop(self) -> None:
        self.loop.close()

    def clean_up(self, state: Any) -> None:
        if state == "SYN-SENT":
            self.hole.__exit__(None, None, None)
        self.device.close()


@pytest.mark.parametrize("state", STATES)
def test_f32_close_after_the_loop(state: Any) -> None:
    scene = Abandoned(state)
    client = scene.client
    pending = pending_of(client)
    # Somebody waits: whoever settles these on a closed loop must not fail over it.
    for future in pending.values():
        future.add_done_callback(lambda _: None)
    before = descriptors()
    scene.device.close()
    scene.close_loop()
    client.close()
    client.close()
    assert client.state is State.CLOSED
    if state in ("NEGOTIATING", "CONNECTED", "SYN-SENT"):
        assert len(descriptors()) < len(before), "the socket is closed"
    scene.clean_up(state)
    assert scene.errors == []


@pytest.mark.parametrize("state", STATES)
def test_f32_collected_after_the_loop(state: Any) -> None:
    scene = Abandoned(state)
    scene.device.close()
    scene.close_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del scene.client
        gc.collect()
    ours = [str(w.message) for w in caught if "Client" in str(w.message)]
    assert all(issubclass(w.category, ResourceWarning) for w in caught)
    assert len(ours) == (state != "CLOSED")
    scene.clean_up(state)
    assert scene.errors == []


@pytest.mark.parametrize("state", [state for state in STATES if state != "CLOSED"])
@pytest.mark.gen_test
async def test_f32_collected(io_loop: VirtualTimeLoop, device: FakeDevice, hole: Any, state: Any) -> None:
    options, address = {}, (device.host, device.port)
    if state == "CONNECTING":
        address, options = ("device.example", 7147), {"resolver": ScriptedResolver(None)}
    elif state == "SYN-SENT":
        address = hole.getsockname()
    elif state in ("NEGOTIATING", "SLEEPING"):
        device.behaviour = Silent() if state == "NEGOTIATING" else Drop()
    client = Client(*address, **options)
    if state != "fresh":
        await gen.sleep(0.05)
    assert client.state.name == {"fresh": "CONNECTING", "SYN-SENT": "CONNECTING"}.get(state, state)
    told = client.wait_closed()
    waiter = client.wait_inform("never")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    (warning,) = caught
    assert warning.category is ResourceWarning and "unclosed <Client" in str(warning.message)
    await told
    assert isinstance(waiter.exception(), ClientClosed)
    await io_loop.idle()
    assert device.connections == []
    accepted = device.accepted
    device.behaviour = Behaviour()
    await gen.sleep(100)
    assert device.accepted == accepted
    assert syn_sent(hole.getsockname()[1]) == 0


@pytest.mark.gen_test
async def test_f32_collected_with_its_callbacks(device: FakeDevice) -> None:
    # A callback that holds the client, as a bound method of the application does.
    class Application:
        def __init__(self) -> None:
            self.client = Client(device.host, device.port, auto_reconnect=False)
            self.client.add_connected_callback(self.connected)

        def connected(self) -> None:
            pass

    application = Application()
    await application.client.wait_connected()
    application.client.close()
    await application.client.wait_closed()
    gone = weakref.ref(application)
    del application
    await gen.sleep(0)  # the Future that was awaited last is still at hand until then
    gc.collect()
    assert gone() is None


# F33


async def cancel_future(future: Any) -> None:
    future.cancel()
    await gen.sleep(0)


async def cancel_task(future: Any) -> None:
    async def wait() -> None:
        await future

    task = asyncio.ensure_future(wait())
    await gen.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_for(future: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(future, 0.1)


async def with_timeout(future: Any) -> None:
    # Does not cancel: the Future is forgotten, and may fail later without anybody looking.
    with pytest.raises(gen.TimeoutError):  # type: ignore[attr-defined]
        await gen.with_timeout(IOLoop.current().time() + 0.1, future, quiet_exceptions=KatcpError)


GIVE_UP = [cancel_future, cancel_task, wait_for, with_timeout]
gives_up = pytest.mark.parametrize("give_up", GIVE_UP, ids=lambda function: function.__name__)


@gives_up
@pytest.mark.parametrize("state", ["fresh", "CONNECTING", "SYN-SENT", "NEGOTIATING", "SLEEPING"])
@pytest.mark.gen_test
async def test_f33_wait_connected(
    io_loop: VirtualTimeLoop, device: FakeDevice, bring: Any, state: str, give_up: Any
) -> None:
    witness = await bring(state, connect_timeout=2, handshake_timeout=2)
    client = witness.client
    device.behaviour = Drop()  # so that it stays unconnected
    others = [client.wait_connected(), client.wait_connected(timeout=1000)]
    state_before = client.state
    await give_up(client.wait_connected())
    assert [other.done() for other in others] == [False, False]
    if state != "fresh":
        assert client.state is state_before, "the client does not care"
    await give_up(client.wait_inform("never"))
    device.behaviour = Behaviour()
    if state in ("CONNECTING", "SYN-SENT"):
        client.close()
        assert all(isinstance(other.exception(), ClientClosed) for other in others)
    else:
        for other in others:
            await other
        await give_up(client.wait_disconnected())
        assert client.is_connected
        client.close()


@gives_up
@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_f33_request_in_flight(
    device: FakeDevice, witnessed: Callable[..., Witness], give_up: Any, protocol: str
) -> None:
    device.protocol = protocol
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    order = []
    first = client.request("sleep", 1)
    first.add_done_callback(lambda _: order.append("first"))
    await give_up(first)
    if give_up is not with_timeout:
        assert first.cancelled()
    # Another one of its name gets a reply of its own; one of another name does not wait.
    second = client.request("sleep", 2)
    third = client.request("echo", "x")
    assert (await third).arguments == [b"x"]
    assert (await second).arguments == []
    assert device.count("sleep") == 2
    stats = client.stats
    assert stats.unmatched_replies == (give_up is not with_timeout)
    assert len(list(client._link.session.pending())) == 0  # type: ignore[union-attr]
    assert client.is_connected


@gives_up
@pytest.mark.gen_test
async def test_f33_request_in_a_queue(device: FakeDevice, witnessed: Callable[..., Witness], give_up: Any) -> None:
    device.protocol = "5.0-M"
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    first, second, third = (client.request("sleep", 1) for _ in range(3))
    await give_up(second)
    await first
    await third
    assert device.count("sleep") == (3 if give_up is with_timeout else 2), "what was cancelled in time is not sent"
    assert client.stats.unmatched_replies == 0


@gives_up
@pytest.mark.gen_test
async def test_f33_request_that_waits_for_a_connection(
    device: FakeDevice, witnessed: Callable[..., Witness], give_up: Any
) -> None:
    device.behaviour = Silent()
    client = witnessed(device.host, device.port, handshake_timeout=1).client
    first = client.request("echo", "1", wait_connected=True)
    second = client.request("echo", "2", wait_connected=True)
    await give_up(first)
    device.behaviour = Behaviour()
    assert (await second).arguments == [b"2"]
    assert device.count("echo") == (2 if give_up is with_timeout else 1)


@gives_up
@pytest.mark.parametrize("state", ["CONNECTING", "SYN-SENT", "NEGOTIATING", "SLEEPING"])
@pytest.mark.gen_test
async def test_f33_connect(io_loop: VirtualTimeLoop, device: FakeDevice, hole: Any, state: str, give_up: Any) -> None:
    options, address = {}, (device.host, device.port)
    if state == "CONNECTING":
        address, options = ("device.example", 7147), {"resolver": ScriptedResolver(None)}
    elif state == "SYN-SENT":
        address = hole.getsockname()
    else:
        device.behaviour = Silent() if state == "NEGOTIATING" else Drop()
    future = Client.connect(*address, backoff=LONGEST, **options)
    await gen.sleep(0.05)
    client = future._client
    assert client.state.name == {"SYN-SENT": "CONNECTING"}.get(state, state)  # type: ignore[union-attr]
    await give_up(future)
    if give_up is with_timeout:
        assert client.state is not State.CLOSED  # type: ignore[union-attr]
        future.cancel()
    assert client.state is State.CLOSED  # type: ignore[union-attr]
    now = io_loop.now
    await client.wait_closed()  # type: ignore[union-attr]
    await io_loop.idle()
    assert io_loop.now == now
    assert device.connections == []
    assert syn_sent(hole.getsockname()[1]) == 0


@gives_up
@pytest.mark.gen_test
async def test_f33_connect_before_it_begins(io_loop: VirtualTimeLoop, device: FakeDevice, give_up: Any) -> None:
    device.behaviour = Silent()
    future = Client.connect(device.host, device.port)
    client = future._client
    await give_up(future)
    future.cancel()
    await client.wait_closed()  # type: ignore[union-attr]
    assert client.state is State.CLOSED  # type: ignore[union-attr]
    await io_loop.idle()
    assert device.connections == []


@pytest.mark.gen_test
async def test_f33_connect_runs_out_of_time(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    device.behaviour = Silent()
    future = Client.connect(device.host, device.port, timeout=3)
    client = future._client
    with pytest.raises(WaitTimeout):
        await future
    assert client.state is State.CLOSED  # type: ignore[union-attr]
    await client.wait_closed()  # type: ignore[union-attr]
    await io_loop.idle()
    assert device.connections == []


@pytest.mark.gen_test
async def test_f33_all_at_once(device: FakeDevice, witnessed: Callable[..., Witness]) -> None:
    # 100 who wait, every other one cancelled, each from within the callback of the one before it.
    client = witnessed(device.host, device.port).client
    waiters = [client.wait_connected() for _ in range(100)]
    for one, other in zip(waiters[::2], waiters[1::2]):
        one.add_done_callback(lambda _, other=other: other.cancel())  # type: ignore[misc]
    await gen.sleep(1)
    assert all(waiter.done() for waiter in waiters)
    assert not any(waiter.cancelled() for waiter in waiters[::2])


@pytest.mark.gen_test
async def test_f33_too_late_to_cancel(device: FakeDevice, witnessed: Callable[..., Witness]) -> None:
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    request = client.request("echo", "x")
    await request
    assert request.cancel() is False
    done = client.wait_connected()
    assert done.cancel() is False
    connecting = Client.connect(device.host, device.port)
    other = await connecting
    assert connecting.cancel() is False
    assert other.is_connected
    other.close()


@pytest.mark.gen_test
async def test_f33_a_deadline_is_no_cancellation(device: FakeDevice, witnessed: Callable[..., Witness]) -> None:
    device.on_request("sleep", Stall())
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    with pytest.raises(RequestTimeout):
        await asyncio.wait_for(client.request("sleep", 1, timeout=1), 2)
    with pytest.raises(WaitTimeout):
        await asyncio.wait_for(client.wait_disconnected(timeout=1), 2)
