"""Hostile bytes: whatever a peer sends, nothing is raised, nothing grows, and no request is lost.

With ``KATCP_TORNADO_SOAK`` in the environment ten times as many bytes are sent.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado import gen

from katcp_tornado import Backoff, Client, KatcpError, Message, State, WriteBufferFull
from katcp_tornado.protocol.counters import Counters
from katcp_tornado.protocol.session import MAX_VERSIONS, Session
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop
from katcp_tornado.wire.codec import RawMessage
from katcp_tornado.wire.message import MAX_MID
from katcp_tornado.wire.version import V4, ProtocolFlags

SOAK = "KATCP_TORNADO_SOAK" in os.environ
#: To each of the devices below.
BYTES = 2_500_000 if SOAK else 250_000
LIMIT, MAX_REPLY, MAX_QUEUE = 4096, 8192, 1024

NAMES = (b"watchdog", b"help", b"sensor-list", b"sensor-value", b"sensor-sampling", b"log-level", b"echo")

#: What devices of several makes have really sent; MID stands for "[id]", or for nothing.
LINES = (
    b"#version-connect katcp-protocol 5.1-BIMT\n",
    b"#version-connect katcp-library katcp-python-0.9.3\n",
    b"#version-connect katcp-device katcp-python-peer-1.0 katcp-python-peer-1.0rc1\n",
    b"#version-connect kernel 6.1.0 #1\\_SMP\\_PREEMPT_DYNAMIC\\_@0\n",
    b"#version-connect katcp-protocol 5.0-M\n",
    b"#version c-peer-1.0\n",
    b"#build-state c-peer-1.0.0\n",
    b"#client-connected 127.0.0.1:55384\n",
    b"#client-disconnected 127.0.0.1:54408\n",
    b"#log info 1795328649.313 Ckatcp 1\\_clients\\_subscribed\\_to\\_sensor\\_ticker\n",
    b"#log info 1795329590484 Ckatcp timer\\_<UNKNOWN>\\_recorded\\_6\\_late\\_timers\n",
    b'#log error 1795328989.7497542 aiokatcp.connection "Invalid\\_character"\\_at\\_character\\_11\n',
    b"#log error 1795328985.779462 root Traceback\\_(most\\_recent):\\n\\n\\_\\_File\\_'watchdog[1x]'.\\n\\n\n",
    b"#sensor-status 1795328642.080231 1 ticker nominal 350\n",
    b"#sensor-status 1795329080772 1 ticker nominal 0\n",
    b"#sensor-valueMID 1795328991783 1 ticker nominal 15\n",
    b"#sensor-valueMID 1795328558.460573 1 sub.with.dots nominal 1\n",
    b"#sensor-listMID discrete-sensor A\\_discrete\\_sensor \\@ discrete idle capture-init error\n",
    b"#sensor-listMID string-sensor A\\_string\\_sensor\\_with\\_spaces\\tand\\_tab \\@ string\n",
    b"#sensor-listMID ticker Counter none integer -2147483648 2147483647 -2147483648 2147483647\n",
    b"#helpMID informs Send\\_n\\_synchronous\\_informs\\_then\\_ok\\_n:\\_?informs\\_n\\_[delay]\n",
    b"#helpMID log-default sets\\_the\\_minimum\\_reported\\_log\\_priority\\_(?log-default\\_[priority])\n",
    b"!helpMID ok 1\n",
    b"!helpMID fail request\\_nosuch\\_is\\_not\\_known\n",
    b"!watchdogMID ok\n",
    b"!watchdogMID ok\n",
    b"!echoMID ok \\@ \xff\xfe a\\_b\n",
    b"!log-levelMID ok warn\n",
    b"!sensor-listMID ok 16\n",
    b"!sensor-listMID fail Unknown\\_sensor\\_name.\n",
    b"!sensor-valueMID fail Traceback\\_(most\\_recent\\_call\\_last):\\n\\n\\_\\_File\\_unterminated\\n\n",
    b"!sensor-samplingMID ok ticker differential 0.5\n",
    b"!nosuchMID invalid Unknown\\_request\n",
    b"?watchdogMID\n",
)
FAREWELLS = (b"#disconnect Device\\_server\\_shutting\\_down.\n", b"#disconnect shutdown\n", b"#disconnect\n")
BITS = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\\",
    b"\\@",
    b"\\x",
    b"[",
    b"]",
    b"[0]",
    b"[-1]",
    b"[1][2]",
    b"\x1b",
)
BITS += (b"#", b"!", b"?", b"\xff", b"\xc3\xa9", b"[99999999999999999999]", b"\\_" * 30, b" " * 50, b"\n" * 20, b"\x1b")  # type: ignore[assignment]
BITS += (b"[007]", b"!watchdog", b"#help[1]", b"#disconnect ", b"[2147483647]", b"[2147483648]", b"!watchdog ok\n")  # type: ignore[assignment]


class Entry:
    """A request, as a session sees it; it is settled once."""

    def __init__(self, name: bytes, on_inform: Optional[Callable[[Message], Any]]) -> None:
        self.name = name
        self.mid: Optional[int] = None
        self.sent = False
        self.line = b""
        self.size = 0
        self.weighed = 0
        self.mark = 0
        self.deadline: Optional[float] = None
        self.on_inform = on_inform
        self.informs: list[Message] = []
        self.outcome: object = None

    def done(self) -> bool:
        return self.outcome is not None

    def watch(self) -> None:
        """Whoever gives it up may tell, or not."""

    def answer(self, raw: RawMessage) -> None:
        self.fail(Message.wrap(raw))

    def abandon(self) -> None:
        """Nobody is told; what is looked for is found again."""

    def fail(self, outcome: object) -> None:
        assert not self.done()
        self.outcome = outcome

    overflow = fail


class Owner:
    """One conversation after another, of which each is as long as the bytes let it be."""

    def __init__(self, rng: random.Random, greeting: Callable[[Session], object]) -> None:
        self.rng = rng
        self.greeting = greeting
        self.counters = Counters()
        self.seen = Counters()
        self.heard = 0
        self.lost: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        self.entries: list[Entry] = []
        hear = (lambda raw: self.hear(Message.wrap(raw)),)
        self.informs = {major: {b"sensor-status": hear, b"log": hear, b"version": hear} for major in (4, 5)}
        self.session: Session
        self.begin()

    def begin(self) -> None:
        self.session = Session(self, self.send, self.informs, self.counters, LIMIT, MAX_REPLY, MAX_QUEUE)
        self.greeting(self.session)

    def hear(self, message: Message) -> None:
        self.heard += 1
        assert bytes(message)
        assert str(message)

    def send(self, line: bytes, urgent: bool) -> None:
        assert line.endswith(b"\n")
        if self.rng.random() < 0.02:
            raise WriteBufferFull("full")

    def session_greeted(self) -> None:
        if self.rng.random() < 0.5:
            self.session.out_of_patience()

    def session_connected(self) -> None:
        assert self.session.protocol is not None

    def session_corrected(self) -> None:
        pass

    def session_lost(self, cause: Exception) -> None:
        assert self.session.alive
        kind = type(cause).__name__
        self.lost[kind] = self.lost.get(kind, 0) + 1
        waiting = [entry for entry in self.entries if not entry.done()]
        assert set(self.session.close()) == set(waiting)
        for entry in waiting:
            entry.fail(cause)

    def session_malformed(self, error: ValueError) -> None:
        assert str(error)

    def session_unknown(self, raw: RawMessage) -> None:
        assert str(Message.wrap(raw))

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        callback(*args)

    # What the client does meanwhile

    def live(self) -> None:
        """Make requests, and give some up."""
        rng, session = self.rng, self.session
        while session.protocol is not None and len(self.entries) < 12:
            entry = Entry(rng.choice(NAMES), self.hear if rng.random() < 0.2 else None)
            try:
                session.send(entry, [b"x" * rng.randrange(200)] * rng.randrange(3))
            except WriteBufferFull:
                break
            self.entries.append(entry)
        if self.entries and rng.random() < 0.2:
            entry = rng.choice(self.entries)
            if not entry.done():
                entry.fail("abandoned")
                session.abandon(entry)

    def check(self) -> None:
        session = self.session
        pending = list(session.pending()) if session.alive else []
        assert len(pending) == len(set(pending))
        still: list[Entry] = []
        for entry in self.entries:
            if not entry.done():
                assert entry in pending
            if entry in pending:
                still.append(entry)
                assert not entry.done() or entry.sent
                assert sum(len(bytes(message)) for message in entry.informs) < 2 * MAX_REPLY
            else:
                kind = type(entry.outcome).__name__
                self.outcomes[kind] = self.outcomes.get(kind, 0) + 1
        assert all(entry in self.entries for entry in pending)
        self.entries = still
        assert len(session.versions) <= MAX_VERSIONS
        assert session._parser.buffer_size <= LIMIT + 1
        assert session._queues._queued <= MAX_QUEUE


def conversation(rng: random.Random, session: Session) -> bytes:
    """Lines as a device sends them, with the ids that wait for an answer, or others."""
    lines = rng.choices(LINES, k=rng.randrange(1, 30))
    if rng.random() < 0.05:
        lines.append(rng.choice(FAREWELLS))
    mids = [entry.mid for entry in session.pending() if entry.mid is not None] or [1]
    for i, line in enumerate(lines):
        if b"MID" in line:
            dice = rng.random()
            mid = rng.choice(mids) if dice < 0.5 else rng.choice((1, MAX_MID, rng.randrange(1, 10_000)))
            lines[i] = line.replace(b"MID", b"" if dice > 0.7 else b"[%d]" % mid)
    return b"".join(lines)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """The same, damaged in one way or another."""
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    b = min(b, a + 60)
    way = rng.randrange(9)
    if way == 0:
        return data[:a] + rng.choice(BITS) + data[a:]
    if way == 1:
        return data[:a] + rng.choice(BITS) + data[b:]
    if way == 2:
        return data[:a] + data[b:]
    if way == 3:
        return data[:a] + data[a:b] * rng.randrange(20) + data[b:]
    if way == 4:
        return data[:a] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40))) + data[a:]
    if way == 5:
        return bytes(byte ^ (1 << rng.randrange(8)) if rng.random() < 0.01 else byte for byte in data)
    if way == 6:
        return data[:a]
    if way == 7:
        return data.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\n", b" \n", b"")), rng.randrange(5))
    return data[:a] + b"x" * rng.randrange(3 * LIMIT if rng.random() < 0.25 else 300) + data[a:]


def chunks(rng: random.Random, data: bytes) -> Iterator[bytes]:
    most = rng.choice((1, 20, 200, 2000, 20_000)) if len(data) < 500 else rng.choice((100, 2000, 20_000))
    at = 0
    while at < len(data):
        size = rng.randrange(1, most + 1)
        yield data[at : at + size]
        at += size


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


GREETINGS: dict[str, Callable[[Session], object]] = {
    "5.1 with ids": lambda session: session.receive(b"#version-connect katcp-protocol 5.1-MIB\n"),
    "5.0 without ids": lambda session: session.receive(b"#version-connect katcp-protocol 5.0-M\n"),
    "4": lambda session: session.assume(V4),
    "assumed, with ids": lambda session: session.assume(ProtocolFlags(5, 1, frozenset("MI"))),
    "none": lambda session: None,
}


@pytest.mark.parametrize("kind", GREETINGS)
def test_a_session_takes_anything(kind: str) -> None:
    rng = random.Random(f"seed {kind}")
    owner = Owner(rng, GREETINGS[kind])
    began = time.process_time()
    conversations, half = 0, 0
    while owner.counters.bytes_in < BYTES:
        if not half and owner.counters.bytes_in > BYTES / 2:
            half = resident()
        data = conversation(rng, owner.session)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 10))):
            data = mutate(rng, data)
        for chunk in chunks(rng, data):
            owner.live()
            owner.session.receive(memoryview(bytearray(chunk)))
            owner.check()
            if not owner.session.alive:
                conversations += 1
                owner.begin()
    counters = owner.counters
    sys.stdout.write(
        f"{kind}: {counters.bytes_in} bytes in {time.process_time() - began:.1f} s, {conversations} conversations, "
        f"{counters.informs} informs, {counters.malformed} malformed, {counters.unmatched_replies} unmatched, "
        f"{counters.requests} requests, {counters.replies} replies, {owner.lost}, {owner.outcomes}\n"
    )
    assert resident() - half < 4 * 1024**2
    assert counters.replies <= counters.requests
    assert counters.malformed > 100
    assert counters.unmatched_replies > 100
    assert owner.outcomes["Message"] == counters.replies > 20
    assert {"LineTooLong", "DeviceDisconnected"} <= set(owner.lost)


# A whole client

VALID = st.sampled_from(LINES).map(lambda line: line.replace(b"MID", b""))
ANSWERS = st.builds(lambda line, mid: line.replace(b"MID", b"[%d]" % mid), st.sampled_from(LINES), st.integers(1, 12))
BROKEN = st.builds(
    lambda line, bit, at: line[: at % len(line)] + bit + line[at % len(line) :],
    VALID,
    st.sampled_from(BITS) | st.binary(max_size=12),
    st.integers(0, 200),
)
SENT = st.lists(VALID | ANSWERS | BROKEN | st.binary(max_size=40) | st.sampled_from(FAREWELLS), max_size=20)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The library has much to say about such devices; nothing of it may be an error."""
    logger = logging.getLogger("katcp_tornado")
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


@settings(max_examples=600 if SOAK else 60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    protocol=st.sampled_from(["5.1-MIB", "5.0-MI", "5.0-M", "4"]),
    talk=st.lists(st.tuples(SENT, st.lists(st.integers(1, 400), max_size=8)), min_size=1, max_size=4),
    seconds=st.sampled_from([0, 0.3, 3]),
)
def test_a_client_takes_anything(protocol: str, talk: list[tuple[list[bytes], list[int]]], seconds: float) -> None:
    errors: list[Any] = []
    io_loop = VirtualTimeLoop(horizon=3600)
    io_loop.asyncio_loop.set_exception_handler(lambda _, context: errors.append(context))

    async def life() -> None:
        with FakeDevice(protocol) as device:
            async with Client(
                *(device.host, device.port),
                backoff=Backoff(first=0.2, maximum=0.5),
                limit=LIMIT,
                max_reply=MAX_REPLY,
                request_timeout=1.0,
                drain_timeout=2.0,
            ) as client:
                heard: list[Message] = []
                client.add_inform_callback("sensor-status", heard.append)
                futures: list[Any] = []
                for lines, sizes in talk:
                    await client.wait_connected(timeout=60)
                    device.on_request("echo")
                    futures += [client.request("echo", i) for i in range(2)]
                    futures += [client.request("sleep", 0.2), client.request("help", on_inform=heard.append)]
                    futures.append(client.wait_inform("sensor-status", timeout=5))
                    data = b"".join(lines)
                    for size in [*sizes, len(data)]:
                        device.send_raw(data[:size])
                        data = data[size:]
                        await io_loop.idle()
                    await gen.sleep(seconds)
                await gen.sleep(5)
                for future in futures:
                    assert future.done()
                    assert future.exception() is None or isinstance(future.exception(), KatcpError)
                # What the device has said last may go on in the next line; after that it is an honest one.
                device.drop_all()
                await client.wait_disconnected(timeout=1)
                await client.wait_connected(timeout=60)
                reply, _ = await client.request("echo", "are we still friends?")
                assert reply == [b"are we still friends?"]
            assert client.state is State.CLOSED

    with quiet():
        io_loop.run_sync(life)
    io_loop.close(all_fds=True)
    assert errors == []
