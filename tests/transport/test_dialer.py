"""Dialling: real sockets on loopback, names by a resolver of the test, and nothing left behind.

A black hole is a listening socket whose queue is full: the kernel drops further SYNs. The clock is virtual, so the
quarters of a second between addresses are exact, and cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado import gen
from tornado.netutil import Resolver

from katcp_tornado import AddressErrors, ConnectTimeout
from katcp_tornado.testing import VirtualTimeLoop
from katcp_tornado.transport import dialer
from katcp_tornado.transport.dialer import STAGGER, Dial, interleave

FDS = Path("/proc/self/fd")
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def fds() -> Any:
    return len(os.listdir(FDS))


either_way = pytest.mark.parametrize("at_once", [True, False], indirect=True)


@pytest.fixture(autouse=True)
def at_once(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a socket of this machine is seen to be connected at once; otherwise the loop watches it, as others."""
    if not getattr(request, "param", True):
        monkeypatch.setattr(dialer, "_is_connected", lambda sock: False)


class Names(Resolver):
    """A resolver that says what it was told to, as it was told to."""

    def initialize(self, answer: Any = (), *, after: float = 0.0) -> None:
        self.answer = answer
        self.after = after
        self.asked: list[Any] = []
        self.cancelled = 0

    async def resolve(self, host: Any, port: Any, family: int = 0) -> Any:
        self.asked.append((host, port))
        try:
            await gen.sleep(self.after)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Result:
    """What a Dial has called, and how often."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.future = io_loop.asyncio_loop.create_future()
        self.calls = 0
        self.started = False
        self.when = None

    def __call__(self, sock: Any, error: Any) -> None:
        assert self.started, "called before start() has returned"
        self.calls += 1
        self.when = self.io_loop.now if hasattr(self.io_loop, "now") else None  # type: ignore[assignment]
        if self.future.done():
            if sock is not None:
                sock.close()
        else:
            self.future.set_result((sock, error))


class Dialing:
    """Makes Dials, and closes whatever comes of them."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.results: list[Any] = []

    def start(
        self,
        answer: Any = None,
        *,
        host: str = "device.example",
        port: int = 7147,
        timeout: float = 10.0,
        keepalive: bool = True,
        resolver: Any = None,
    ) -> Any:
        """A Result; *answer* is what the resolver says."""
        if resolver is None and answer is not None:
            resolver = Names(answer)
        result = Result(self.io_loop)
        result.dial = Dial(  # type: ignore[attr-defined]
            self.io_loop, host, port, resolver=resolver, keepalive=keepalive, timeout=timeout, done=result
        )
        self.results.append(result)
        result.dial.start()  # type: ignore[attr-defined]
        result.started = True
        return result

    async def run(self, answer: Any = None, **options: Any) -> Any:
        """The socket and the error."""
        result = self.start(answer, **options)
        await result.future
        return result.future.result()

    def close(self) -> None:
        for result in self.results:
            result.dial.cancel()
            if result.future.done() and result.future.result()[0] is not None:
                result.future.result()[0].close()


@pytest.fixture
def dialing(io_loop: VirtualTimeLoop) -> Iterator[Any]:
    dialing = Dialing(io_loop)
    yield dialing
    dialing.close()


@pytest.fixture
def peers() -> Iterator[Any]:
    """Makes addresses that accept, refuse or swallow."""
    with contextlib.ExitStack() as stack:
        yield Peers(stack)


class Peers:
    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.numbers = itertools.count(2)

    def sock(self, family: Any = V4) -> Any:
        try:
            return self.stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        except OSError as exc:
            pytest.skip(f"no sockets of this family here: {exc}")

    def bound(self, family: Any = V4) -> Any:
        sock = self.sock(family)
        host = "::1" if family == V6 else f"127.0.0.{next(self.numbers)}" if sys.platform == "linux" else "127.0.0.1"
        try:
            sock.bind((host, 0))
        except OSError as exc:
            pytest.skip(f"no loopback of this family here: {exc}")
        return sock

    def good(self, family: Any = V4) -> Any:
        """An address that accepts, and its listening socket."""
        sock = self.bound(family)
        sock.listen(16)
        return (family, sock.getsockname()), sock

    def refusing(self, family: Any = V4) -> Any:
        """An address that refuses: bound, but nobody listens."""
        return family, self.bound(family).getsockname()

    def black_hole(self, family: Any = V4) -> Any:
        """An address that says nothing at all."""
        sock = self.bound(family)
        sock.listen(0)
        address = sock.getsockname()
        for _ in range(64):
            filler = self.sock(family)
            filler.settimeout(0.1)
            try:
                filler.connect(address)
            except socket.timeout:
                return family, address
            except OSError as exc:
                pytest.skip(f"a full accept queue is no black hole here: {exc}")
        pytest.skip("a full accept queue is no black hole here: it accepts all the same")


def accepted(listener: Any, sock: Any) -> bool:
    """Whether the other end of *sock* is at this listener."""
    listener.settimeout(5)
    with listener.accept()[0] as other:
        return other.getpeername() == sock.getsockname()  # type: ignore[no-any-return]


# One address


@either_way
@pytest.mark.gen_test
@pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
async def test_it_connects(io_loop: VirtualTimeLoop, dialing: Any, peers: Any, family: Any) -> None:
    address, listener = peers.good(family)
    result = dialing.start([address])
    await result.future
    sock, error = result.future.result()
    assert error is None
    assert sock.getpeername() == address[1]
    assert sock.gettimeout() == 0  # it does not block
    assert accepted(listener, sock)
    await gen.sleep(100)
    assert result.calls == 1 and result.when == 0


@pytest.mark.gen_test
async def test_a_numeric_host_needs_no_resolver(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    (_, address), listener = peers.good()
    sock, error = await dialing.run(host=address[0], port=address[1])
    assert error is None and accepted(listener, sock)


@pytest.mark.gen_test
async def test_a_numeric_ipv6_host(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    (_, address), listener = peers.good(V6)
    sock, error = await dialing.run(host="::1", port=address[1])
    assert error is None and accepted(listener, sock)


@pytest.mark.gen_test
@pytest.mark.real_time
async def test_a_name_of_the_system(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    listener = peers.sock()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    sock, error = await dialing.run(host="localhost", port=listener.getsockname()[1])
    assert error is None and accepted(listener, sock)


@pytest.mark.gen_test
async def test_the_resolver_is_asked_each_time(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, _ = peers.good()
    resolver = Names([address])
    for _ in range(3):
        sock, _ = await dialing.run(resolver=resolver)
        sock.close()
    assert resolver.asked == [("device.example", 7147)] * 3


@pytest.mark.gen_test
async def test_a_resolver_is_asked_for_numeric_hosts_too(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    # as Tornado does; a resolver may map them
    address, listener = peers.good()
    sock, error = await dialing.run([address], host="192.0.2.1")
    assert error is None and accepted(listener, sock)


# Socket options


@pytest.mark.gen_test
@pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
async def test_socket_options(dialing: Any, peers: Any, family: Any) -> None:
    """R20: half open links are noticed within 30 s, idle by keepalive, busy by the user timeout."""
    sock, _ = await dialing.run([peers.good(family)[0]])
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    if sys.platform == "linux":
        expected = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
    else:
        expected = {"TCP_KEEPALIVE": 10}
    for name, value in expected.items():
        assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value, name


@pytest.mark.gen_test
async def test_socket_options_without_keepalive(dialing: Any, peers: Any) -> None:
    sock, _ = await dialing.run([peers.good()[0]], keepalive=False)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.gen_test
async def test_the_socket_is_not_inherited(dialing: Any, peers: Any) -> None:
    sock, _ = await dialing.run([peers.good()[0]])
    assert not sock.get_inheritable()


# Several addresses


def addresses_strategy() -> Any:
    return st.lists(st.tuples(st.sampled_from([V4, V6, 1]), st.tuples(st.text("abc", max_size=3), st.integers(0, 9))))


@given(addresses_strategy())
def test_interleaving(addresses: Any) -> None:
    """First the first of each family, then the second of each, and so on; the families as they first came."""
    families = list(dict.fromkeys(family for family, _ in addresses))
    places = []
    for place, (family, _) in enumerate(addresses):
        nth = sum(other == family for other, _ in addresses[:place])
        places.append((nth, families.index(family), place))
    assert interleave(addresses) == [addresses[place] for _, _, place in sorted(places)]


@given(st.integers(0, 6), st.integers(0, 6))
def test_two_families_alternate(fours: Any, sixes: Any) -> None:
    four = [(V4, (f"10.0.0.{i}", 1)) for i in range(fours)]
    six = [(V6, (f"::{i}", 1, 0, 0)) for i in range(sixes)]
    result = interleave(six + four)
    pairs = min(fours, sixes)
    assert result[: 2 * pairs] == [it for pair in zip(six, four) for it in pair]
    assert result[2 * pairs :] == six[pairs:] + four[pairs:]


@pytest.mark.gen_test
async def test_a_refusal_does_not_wait(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, listener = peers.good()
    sock, error = await dialing.run([peers.refusing(), peers.refusing(), address])
    assert error is None and accepted(listener, sock)
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_the_first_of_one_family_is_a_black_hole(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    """F8, RFC 8305: connected within 0.6 s; the second address has a head start of nobody."""
    address, listener = peers.good()
    sock, error = await dialing.run([peers.black_hole(), address])
    assert error is None and accepted(listener, sock)
    assert io_loop.now == pytest.approx(STAGGER) == 0.25


@pytest.mark.gen_test
async def test_a_black_hole_of_ipv6_and_an_ipv4_that_works(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, listener = peers.good()
    hole = peers.black_hole(V6)
    sock, error = await dialing.run([hole, hole, hole, address])
    assert error is None and accepted(listener, sock)
    assert io_loop.now == pytest.approx(0.25)  # the families alternate: it is the second


@pytest.mark.gen_test
async def test_a_refusal_after_a_black_hole_goes_on_at_once(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, listener = peers.good()
    sock, error = await dialing.run([peers.black_hole(), peers.refusing(), peers.refusing(), address])
    assert error is None and accepted(listener, sock)
    assert io_loop.now == pytest.approx(0.25)


@pytest.mark.gen_test
async def test_many_black_holes(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, listener = peers.good()
    hole = peers.black_hole()
    sock, error = await dialing.run([hole, hole, hole, hole, address])
    assert error is None and accepted(listener, sock)
    assert io_loop.now == pytest.approx(4 * 0.25)


@either_way
@pytest.mark.gen_test
@pytest.mark.skipif(not FDS.is_dir(), reason="counts descriptors as Linux does")
async def test_the_losers_are_closed(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, _ = peers.good()
    hole = peers.black_hole()
    before = fds()
    result = dialing.start([hole, hole, hole, address])
    await gen.sleep(0.6)
    assert fds() == before + 3
    await result.future
    assert fds() == before + 1  # the winner
    result.future.result()[0].close()
    assert fds() == before


@pytest.mark.gen_test
async def test_all_refused(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    answer = [peers.refusing() for _ in range(3)] + [peers.refusing(V6)]
    sock, error = await dialing.run(answer)
    assert sock is None
    assert type(error) is ConnectionRefusedError and error.errno == errno.ECONNREFUSED
    cause = error.__cause__
    assert isinstance(cause, AddressErrors)
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for _, (host, port, *_) in answer]
    assert set(cause.errors) == set(names)
    assert all(type(one) is ConnectionRefusedError for one in cause.errors.values())
    assert all(name in str(cause) for name in names)
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_one_refused(dialing: Any, peers: Any) -> None:
    _, error = await dialing.run([peers.refusing()])
    assert type(error) is ConnectionRefusedError
    assert error.__cause__ is None


@pytest.mark.gen_test
async def test_the_last_error_is_the_one_that_counts(dialing: Any, peers: Any) -> None:
    # port 0 and a broadcast address cannot be connected to, each in its own way
    unreachable = (V4, ("255.255.255.255", 9))
    _, error = await dialing.run([unreachable, peers.refusing()])
    assert type(error) is ConnectionRefusedError
    assert len(error.__cause__.errors) == 2  # type: ignore[union-attr]
    assert isinstance(error.__cause__.errors["255.255.255.255:9"], OSError)  # type: ignore[union-attr]


@pytest.mark.gen_test
async def test_each_attempt_has_an_error_of_its_own(dialing: Any, peers: Any) -> None:
    answer = [peers.refusing(), peers.refusing()]
    (_, one), (_, other) = [await dialing.run(answer) for _ in range(2)]
    assert one is not other and one.__cause__ is not other.__cause__


# Deadlines


@pytest.mark.gen_test
async def test_a_black_hole_alone(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    hole = peers.black_hole()
    sock, error = await dialing.run([hole], timeout=3)
    assert sock is None and io_loop.now == 3
    assert type(error) is ConnectTimeout
    assert str(error) == "no connection within 3 s"
    name = f"{hole[1][0]}:{hole[1][1]}"
    assert set(error.__cause__.errors) == {name}  # type: ignore[union-attr]
    assert isinstance(error.__cause__.errors[name], TimeoutError)  # type: ignore[union-attr]


@pytest.mark.gen_test
async def test_the_causes_of_a_timeout(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    hole, refusing = peers.black_hole(), peers.refusing()
    _, error = await dialing.run([refusing, hole], timeout=1)
    assert type(error) is ConnectTimeout
    causes = {type(one) for one in error.__cause__.errors.values()}  # type: ignore[union-attr]
    assert causes == {ConnectionRefusedError, TimeoutError}
    assert io_loop.now == 1


@pytest.mark.gen_test
async def test_a_resolver_that_hangs(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    resolver = Names([peers.good()[0]], after=1000)
    result = dialing.start(resolver=resolver, timeout=5)
    await result.future
    _, error = result.future.result()
    assert type(error) is ConnectTimeout
    assert "'device.example' could not be looked up in time" in str(error)
    assert error.__cause__ is None
    assert io_loop.now == 5
    await gen.sleep(2000)
    assert result.calls == 1
    assert resolver.cancelled == 1


@pytest.mark.gen_test
async def test_one_deadline_for_all(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    """The look-up takes 4 s of 5, which leaves one for the address."""
    resolver = Names([peers.black_hole()], after=4)
    _, error = await dialing.run(resolver=resolver, timeout=5)
    assert type(error) is ConnectTimeout and error.__cause__ is not None
    assert io_loop.now == 5


@pytest.mark.gen_test
async def test_no_deadline(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    resolver = Names([peers.good()[0]], after=50_000)
    sock, error = await dialing.run(resolver=resolver, timeout=None)
    assert error is None and sock is not None
    assert io_loop.now == 50_000


@pytest.mark.gen_test
async def test_nothing_is_left_of_a_deadline_that_was_met(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    await dialing.run([peers.black_hole(), peers.good()[0]])
    assert sum(not handle.cancelled() for handle in io_loop.asyncio_loop._scheduled) == 0  # type: ignore[attr-defined]


# A resolver that misbehaves


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_NONAME, "unknown"), OSError(errno.EMFILE, "too many"), KeyError("mine")],
    ids=repr,
)
async def test_a_resolver_that_raises(io_loop: VirtualTimeLoop, dialing: Any, error: Any) -> None:
    sock, raised = await dialing.run(error)
    assert sock is None and raised is error
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_a_resolver_that_raises_what_idna_raises(dialing: Any) -> None:
    _, raised = await dialing.run(UnicodeError("label empty or too long"))
    assert isinstance(raised, socket.gaierror)


class Sudden(Resolver):
    """Not even a Future."""

    def initialize(self, result: Any = None) -> None:
        self.result = result

    def resolve(self, host: Any, port: Any, family: int = 0) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.mark.gen_test
@pytest.mark.parametrize("result", [None, 5, [], KeyError("mine"), OSError(5, "mine")], ids=repr)
async def test_a_resolver_that_does_not_even_begin(dialing: Any, result: Any) -> None:
    sock, error = await dialing.run(resolver=Sudden(result))
    assert sock is None
    assert error is result if isinstance(result, BaseException) else isinstance(error, TypeError)


@pytest.mark.gen_test
async def test_a_resolver_that_gives_up(io_loop: VirtualTimeLoop, dialing: Any) -> None:
    future = io_loop.asyncio_loop.create_future()
    result = dialing.start(resolver=Sudden(future))
    future.cancel()
    await result.future
    assert isinstance(result.future.result()[1], socket.gaierror)


@pytest.mark.gen_test
async def test_a_resolver_that_knows_no_address(io_loop: VirtualTimeLoop, dialing: Any) -> None:
    sock, error = await dialing.run([])
    assert sock is None
    assert isinstance(error, socket.gaierror) and "no address" in str(error)
    assert io_loop.now == 0


RUBBISH: Any = {
    "None": None,
    "a number": 5,
    "a text": "127.0.0.1",
    "numbers": [1, 2],
    "texts": ["127.0.0.1"],
    "a lone address": [("127.0.0.1", 80)],
    "a triple": [(V4, ("127.0.0.1", 80), 0)],
    "no address": [(V4, None)],
    "an address in text": [(V4, "127.0.0.1:80")],
    "half an address": [(V4, ("127.0.0.1",))],
    "too much of one": [(V4, ("127.0.0.1", 80, 0, 0, 0, 0))],
    "an impossible port": [(V4, ("127.0.0.1", 70000))],
    "a port in text": [(V4, ("127.0.0.1", "http"))],
    "an unknown family": [(9999, ("127.0.0.1", 80))],
    "a negative family": [(-5, ("127.0.0.1", 80))],
    "a family in text": [("inet", ("127.0.0.1", 80))],
    "an unhashable family": [([], ("127.0.0.1", 80))],
    "the wrong family": [(V6, ("127.0.0.1", 80))],
    "a host with NUL": [(V4, ("127.0.0.1\x00", 80))],
    "something callable": print,
}


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
async def test_a_resolver_that_talks_rubbish(io_loop: VirtualTimeLoop, dialing: Any, answer: Any) -> None:
    """It is a failed attempt, at once, and no error of the loop."""
    resolver = Names()
    resolver.answer = answer
    result = dialing.start(resolver=resolver, timeout=10)
    await gen.sleep(100)
    assert result.calls == 1
    sock, error = result.future.result()
    assert sock is None
    assert isinstance(error, Exception) and not isinstance(error, ConnectTimeout)
    assert result.when == 0


@pytest.mark.gen_test
async def test_rubbish_among_good_addresses(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    """What cannot be connected to is passed over."""
    address, listener = peers.good()
    answer = [(V4, ("127.0.0.1", 70000)), (9999, ("127.0.0.1", 80)), (V4, None), address]
    sock, error = await dialing.run(answer)
    assert error is None and accepted(listener, sock)


# Nothing is called early, late, or twice


@pytest.mark.gen_test
async def test_a_connect_that_fails_at_once_is_told_in_a_turn_of_its_own(
    io_loop: VirtualTimeLoop, dialing: Any
) -> None:
    # the kernel refuses a broadcast address inside connect(); Result asserts that start() has returned
    for answer in ([(V4, ("255.255.255.255", 9))], [(V4, None)], []):
        sock, error = await dialing.run(answer)
        assert sock is None and error is not None
    result = dialing.start(host="255.255.255.255", port=9)
    assert result.calls == 0
    await result.future
    assert isinstance(result.future.result()[1], OSError)


@either_way
@pytest.mark.gen_test
@pytest.mark.skipif(not FDS.is_dir(), reason="counts descriptors as Linux does")
@pytest.mark.parametrize("when", [None, 0.0, 0.1, 1.0, 1.1, 1.3, 1.6, 1.75, 3.0])
async def test_cancelled_at_any_step(io_loop: VirtualTimeLoop, dialing: Any, peers: Any, when: Optional[float]) -> None:
    """Before the first turn, during the look-up, with one, two or three connects under way, after the timeout."""
    hole = peers.black_hole()
    before = fds()
    resolver = Names([hole] * 4, after=1)
    result = dialing.start(resolver=resolver, timeout=2.5)
    if when is not None:
        await gen.sleep(when)
    early = result.calls == 0
    result.dial.cancel()
    result.dial.cancel()
    assert fds() == before
    await gen.sleep(100)
    assert fds() == before
    assert result.calls == (0 if early else 1)
    assert early == (when != 3.0)
    assert sum(not handle.cancelled() for handle in io_loop.asyncio_loop._scheduled) == 0  # type: ignore[attr-defined]


@either_way
@pytest.mark.gen_test
@pytest.mark.skipif(not FDS.is_dir(), reason="counts descriptors as Linux does")
async def test_cancelled_turn_by_turn(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    """Each turn of the loop, from the start to the answer: accepted, refused, refused at once."""
    good, refusing = peers.good()[0], peers.refusing()
    for answer in ([good], [refusing], [refusing, refusing, good], [(V4, None)], [], OSError(5, "x")):
        called = 0
        for turns in range(12):
            before = fds()
            result = dialing.start(answer)
            for _ in range(turns):
                await gen.sleep(0)
            calls = result.calls
            result.dial.cancel()
            if calls and result.future.result()[0] is not None:
                result.future.result()[0].close()
            called += calls
            assert fds() == before
            await gen.sleep(20)
            assert result.calls == calls
            assert fds() == before
        assert called > 0, "twelve turns should do"


@pytest.mark.gen_test
async def test_cancelled_before_the_answer_is_told(io_loop: VirtualTimeLoop, dialing: Any) -> None:
    result = dialing.start(host="255.255.255.255", port=9)
    result.dial.cancel()
    await gen.sleep(100)
    assert result.calls == 0


@either_way
@pytest.mark.gen_test
async def test_cancelled_by_the_answer_itself(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    """Whoever is called may cancel; it is over anyway."""
    for answer in ([peers.good()[0]], [peers.refusing()]):
        result = dialing.start(answer)
        result.future.add_done_callback(lambda _, result=result: result.dial.cancel())
        await gen.sleep(100)
        assert result.calls == 1


@pytest.mark.gen_test
async def test_never_started(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    dial = Dial(
        io_loop,
        "device.example",
        80,
        resolver=Names([]),
        keepalive=True,
        timeout=1,
        done=lambda *_: pytest.fail("called"),
    )
    dial.cancel()
    await gen.sleep(10)


@either_way
@pytest.mark.gen_test
@pytest.mark.skipif(not FDS.is_dir(), reason="counts descriptors as Linux does")
async def test_nothing_is_left_behind(io_loop: VirtualTimeLoop, dialing: Any, peers: Any) -> None:
    address, refusing = peers.good()[0], peers.refusing()
    hole = peers.black_hole()
    before = fds()
    for i in range(30):
        sock, error = await dialing.run([[refusing, refusing], [hole], [hole, refusing]][i % 3], timeout=0.5)
        assert sock is None
        del error
    dialing.results.clear()
    assert fds() == before
    sock, error = await dialing.run([hole, address])
    assert error is None


# A connection to itself


@pytest.mark.gen_test
async def test_a_connection_to_itself_is_refused(
    io_loop: VirtualTimeLoop, dialing: Any, peers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unused port of this machine may be picked for the client's own end: then it talks to itself."""
    unused = peers.refusing()[1]
    peers.stack.close()

    made = []

    class Unlucky(socket.socket):
        def connect_ex(self, address: Any) -> Any:
            made.append(self)
            self.bind(address)
            return super().connect_ex(address)

    with Unlucky() as sock:  # this is what happens without us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.connect_ex(unused) != 0:
            pytest.skip("a socket cannot be connected to itself here")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert sock.getpeername() == sock.getsockname()
    monkeypatch.setattr(socket, "socket", Unlucky)
    sock, error = await dialing.run([(V4, unused)])
    assert sock is None
    assert type(error) is ConnectionRefusedError
    assert {one.fileno() for one in made[1:]} == {-1}
