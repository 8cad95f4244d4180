"""What the tests of the faults share: a witness of all that a client tells, and things that break."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import Resolver
from tornado.tcpserver import TCPServer

import katcp_tornado
from katcp_tornado import Backoff, Client, ClientClosed, State
from katcp_tornado.connection.states import TRANSITIONS

HERE = Path(__file__).parent


class _Upper(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


#: The default backoff, but each delay is the longest that may be drawn: 1, 2, 4, 8, 16, 30, 30 ... seconds.
LONGEST = Backoff(random=_Upper())
LONGEST_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)


class Witness:
    """Hears all that a client tells, and can say whether it fits together.

    ``heard`` is a list of "connected", "disconnected", "failed"; ``failures`` what the attempts failed of, ``losses``
    what the links were lost of; ``times`` the loop's time of each entry of ``heard``.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.loop = client.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.heard: list[str] = []
        self.times: list[float] = []
        self.attempts: list[float] = [self.loop.time()]
        self.failures: list[BaseException] = []
        self.losses: list[Optional[BaseException]] = []
        self.states: list[tuple[State, State]] = []
        self.expected: list[str] = []
        self.faults: list[str] = []
        client.add_state_callback(self._moved)
        client.add_connected_callback(self._connected)
        client.add_disconnected_callback(self._disconnected)
        client.add_failed_connect_callback(self._failed)

    def _moved(self, old: State, new: State) -> None:
        before = self.states[-1][1] if self.states else State.CONNECTING
        if old is not before or new not in TRANSITIONS[old]:
            self.faults.append(f"{old} to {new}, after {before}")
        self.states.append((old, new))
        cause = self.client.last_exc
        if new is State.CONNECTING:
            self.attempts.append(self.loop.time())
        elif new is State.CONNECTED:
            self.expected.append("connected")
        elif old is State.CONNECTED:
            self.expected.append("disconnected")
        elif new in (State.SLEEPING, State.CLOSED) and old is not State.SLEEPING:
            self.expected += [] if isinstance(cause, ClientClosed) else ["failed"]
        # Another listener may have moved the client on; then it is not for us to compare.
        if self.client.state is new and (cause is None) != self._has_no_cause(new):
            self.faults.append(f"last_exc is {cause!r} in {new}")

    def _has_no_cause(self, state: State) -> bool:
        first = len(self.attempts) == 1 and not self.failures
        return state is State.CONNECTED or (state is State.NEGOTIATING and first)

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        self.times.append(self.loop.time())
        if self.heard != self.expected[: len(self.heard)]:
            self.faults.append(f"heard {self.heard}, expected {self.expected}")

    def _connected(self) -> None:
        self._hear("connected")

    def _disconnected(self) -> None:
        self.losses.append(self.client.last_exc)
        self._hear("disconnected")

    def _failed(self, exc: BaseException) -> None:
        self.failures.append(exc)
        self._hear("failed")

    def check(self) -> None:
        """Per connection exactly connected and disconnected, failed once for each failed attempt, and counted so."""
        counts = collections.Counter(self.heard)
        stats = self.client.stats
        assert self.faults == []
        assert self.heard == self.expected
        assert counts["connected"] == stats.connects
        assert counts["disconnected"] == sum(stats.disconnects.values())
        # There may be one more, which goes on, or which close() has ended: perhaps before it had begun.
        ended = counts["failed"] + counts["connected"]
        assert len(self.attempts) - ended in (0, 1)
        if isinstance(self.client.last_exc, ClientClosed):
            assert ended <= stats.attempts <= len(self.attempts)
        else:
            assert stats.attempts == len(self.attempts)
        for exc in [*self.failures, *self.losses]:
            assert not isinstance(exc, StreamClosedError)

    def delays(self) -> list[float]:
        """Seconds from each failure or loss to the attempt that followed it."""
        ends = [when for what, when in zip(self.heard, self.times) if what != "connected"]
        return [began - end for began, end in zip(self.attempts[1:], ends)]


def descriptors() -> dict[int, str]:
    """The open descriptors of this process, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def syn_sent(port: int) -> int:
    """How many sockets of this process are in SYN-SENT to this port."""
    own = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them has gone
            own.add(os.readlink(f"/proc/self/fd/{fd}"))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table) as lines:
            for line in list(lines)[1:]:
                _, _, remote, state, *rest = line.split()
                name = f"socket:[{rest[5]}]"
                if state == "02" and int(remote.rpartition(":")[2], 16) == port and name in own:
                    found.add(name)
    return len(found)


@contextlib.contextmanager
def blackhole(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A listening socket that answers no SYN, because its accept queue is full."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(20):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 0.05)[1]:
                filler.close()
                break
        else:
            raise AssertionError("the accept queue never gets full")
        yield listener


def reset_on_close(sock: socket.socket) -> None:
    """Make the close of this socket send a reset (RST)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stall(io_loop: Any, seconds: float) -> None:
    """Hold up a `.VirtualTimeLoop` for so long, as a callback does that blocks."""
    io_loop._clock.advance(seconds)


class ScriptedResolver(Resolver):
    """Answers each look-up with the next of *answers*, the last one for good.

    An answer is a list of ``(host, port)``, an exception, or None, which never comes.
    """

    def initialize(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []
        self.unanswered: list[Future[Any]] = []

    def resolve(self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> Future[Any]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        future: Future[Any] = IOLoop.current().asyncio_loop.create_future()  # type: ignore[attr-defined]
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(addresses(*answer))
        else:
            self.unanswered.append(future)
        return future


def addresses(*pairs: tuple[str, int]) -> list[tuple[int, Any]]:
    """What a resolver answers."""
    return [
        (socket.AF_INET6, (host, port, 0, 0)) if ":" in host else (socket.AF_INET, (host, port)) for host, port in pairs
    ]


class Relay(TCPServer):
    """A small TCP relay to ``host:port``, which makes the network a bad one.

    :arg latency: seconds that each piece is on the way.
    :arg bandwidth: bytes in a second, each way; None is no limit.
    :arg slice: most bytes handed on at a time.
    """

    def __init__(
        self, host: str, port: int, *, latency: float = 0.0, bandwidth: Optional[float] = None, slice: int = 65536
    ) -> None:
        super().__init__()
        self._target = (host, port)
        self.latency = latency
        self.bandwidth = bandwidth
        self.slice = slice
        self.accepted = 0
        #: Pairs of streams: the client's end, the device's end. Those of them that are open.
        self.pairs: list[tuple[IOStream, IOStream]] = []
        self._forgotten: set[IOStream] = set()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        self.port: int = sock.getsockname()[1]
        self.add_sockets([sock])

    async def handle_stream(self, stream: IOStream, address: Any) -> None:
        self.accepted += 1
        other = IOStream(socket.socket())
        pair = (stream, other)
        self.pairs.append(pair)
        stream.set_close_callback(lambda: self._ended(pair))
        try:
            await other.connect(self._target)
        except StreamClosedError:
            stream.close()
            return
        for each in pair:
            each.set_nodelay(True)
        other.set_close_callback(lambda: self._ended(pair))
        loop = IOLoop.current()
        for source, sink in (pair, pair[::-1]):
            loop.add_future(loop.asyncio_loop.create_task(self._hand_on(source, sink)), lambda f: f.result())  # type: ignore[attr-defined]

    async def _hand_on(self, source: IOStream, sink: IOStream) -> None:
        loop = IOLoop.current()
        free = 0.0  # when the line can take more
        while True:
            try:
                data = await source.read_bytes(self.slice, partial=True)
            except StreamClosedError:
                return
            if source in self._forgotten:
                continue
            now = loop.asyncio_loop.time()  # type: ignore[attr-defined]
            if self.bandwidth is not None:
                free = max(free, now) + len(data) / self.bandwidth
            delay = max(free, now) + self.latency - now
            if delay > 0:
                loop.call_later(delay, self._deliver, sink, data)
            else:
                self._deliver(sink, data)

    def _deliver(self, sink: IOStream, data: bytes) -> None:
        if not sink.closed():
            sink.write(data)

    def _ended(self, pair: tuple[IOStream, IOStream]) -> None:
        if pair[0] in self._forgotten:  # like a NAT: the other side hears nothing of it
            if pair[0].closed() and pair in self.pairs:
                self.pairs.remove(pair)
            return
        if pair in self.pairs:
            self.pairs.remove(pair)
        for each in pair:
            each.close()

    def forget(self) -> None:
        """Lose the state of every connection, as a NAT does: nothing gets through any more, and nobody is told."""
        for pair in self.pairs:
            self._forgotten.update(pair)

    def close(self) -> None:
        """Stop, and close all that is open."""
        self.stop()
        self._forgotten.clear()
        for pair in list(self.pairs):
            self._ended(pair)


def script(name: str, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
    """Start a Python script of this directory in a process of its own."""
    root = str(Path(katcp_tornado.__file__).parent.parent)  # the library that is under test here
    path = os.pathsep.join(p for p in (root, str(HERE.parent), os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(HERE / name), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        **kwargs,
    )


@contextlib.contextmanager
def device_process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `.FakeDevice` in a process of its own, and its port. Killed in the end, if it still lives."""
    with script("process_device.py", stdin=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()
            process.communicate()
