"""F1 to F8: no connection comes about."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.fault_tools import LONGEST_DELAYS, ScriptedResolver, addresses, blackhole, syn_sent
from tornado import gen

from katcp_tornado import Backoff, Client, ConnectTimeout, NotConnected, State
from katcp_tornado.errors import AddressErrors
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop
from katcp_tornado.transport import lookup

RESOLVER_ERRORS = (socket.EAI_AGAIN, socket.EAI_NONAME, socket.EAI_FAIL)


@contextlib.contextmanager
def hung_look_up(monkeypatch: pytest.MonkeyPatch, host: Any) -> Iterator[Any]:
    """The system's look-up of *host* does not come back before the end of the context."""
    release = threading.Event()
    real = socket.getaddrinfo
    threads = set()

    def getaddrinfo(name: Any, *args: Any, flags: int = 0, **kwargs: Any) -> Any:
        if name != host or flags & socket.AI_NUMERICHOST:
            return real(name, *args, flags=flags, **kwargs)  # type: ignore[misc]
        threads.add(threading.current_thread())
        release.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        try:
            yield threads
        finally:
            release.set()
            for thread in threads:
                thread.join(10)
    assert lookup.outstanding() == 0


# F1


@pytest.mark.gen_test
async def test_f01_refused(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert [type(exc) for exc in witness.failures] == [ConnectionRefusedError] * 8
    assert witness.attempts == pytest.approx([0, 1, 3, 7, 15, 31, 61, 91])
    assert witness.client.last_exc is witness.failures[-1]
    assert witness.client.stats.consecutive_failures == 8
    device.start()
    await witness.client.wait_connected()
    assert io_loop.now == pytest.approx(121)
    assert device.accepted == 1
    assert witness.client.last_exc is None


@pytest.mark.gen_test
async def test_f01_refused_raises_for_who_waits(device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    client = witnessed(device.host, device.port, auto_reconnect=False).client
    with pytest.raises(ConnectionRefusedError):
        await client.wait_connected()
    assert client.state is State.CLOSED


# F2


@pytest.mark.gen_test
async def test_f02_syn_black_hole(
    io_loop: VirtualTimeLoop, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    with blackhole() as hole:
        port = hole.getsockname()[1]
        witness = witnessed("127.0.0.1", port)
        await gen.sleep(9.9)
        assert witness.client.state is State.CONNECTING
        assert syn_sent(port) == 1
        await gen.sleep(0.2)
        assert [type(exc) for exc in witness.failures] == [ConnectTimeout]
        assert witness.times == [pytest.approx(10)]
        assert syn_sent(port) == 0
        await gen.sleep(20)
        assert witness.attempts == pytest.approx([0, 11, 23])
        assert syn_sent(port) == 1
    record_property("detected_after", witness.times[0])


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f02_syn_black_hole_for_real(witnessed: Any, record_property: Callable[[str, object], None]) -> None:
    with blackhole() as hole:
        port = hole.getsockname()[1]
        start = time.monotonic()
        witness = witnessed("127.0.0.1", port, connect_timeout=0.5, auto_reconnect=False)
        with pytest.raises(ConnectTimeout):
            await witness.client.wait_connected()
        detected = time.monotonic() - start
        assert detected == pytest.approx(0.5, abs=0.2)
        assert syn_sent(port) == 0
    record_property("detected_after", detected)


@pytest.mark.gen_test
async def test_f02_close_leaves_no_socket(witnessed: Any) -> None:
    with blackhole() as hole:
        port = hole.getsockname()[1]
        client = witnessed("127.0.0.1", port).client
        await gen.sleep(1)
        assert syn_sent(port) == 1
        client.close()
        assert syn_sent(port) == 0


# F3


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL])
@pytest.mark.gen_test
async def test_f03_unreachable(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, witnessed: Any, number: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect_ex", lambda sock, address: number)
        witness = witnessed(device.host, device.port)
        await gen.sleep(40)
    assert [exc.errno for exc in witness.failures] == [number] * 6
    assert witness.delays() == pytest.approx(LONGEST_DELAYS[:5])
    await witness.client.wait_connected()


@pytest.mark.beside("process_network_down.py")
def test_f03_interface_down(findings: Any) -> None:
    down, up = findings["down"], findings["up"]
    assert set(down["errors"]) <= {"ENETUNREACH", "EHOSTUNREACH", "ConnectTimeout"}, "it depends on the kernel"
    assert len(down["errors"]) == 1
    assert up["heard"][:2] == ["failed", "failed"] and up["heard"][-1] == "connected"


@pytest.mark.beside("process_network_down.py")
def test_f03_no_route(findings: Any) -> None:
    assert findings["no_route"] == ["ENETUNREACH"]


# F4


@pytest.mark.parametrize("host", ["foo..bar", "a" * 64 + ".invalid", ".", "a\0b", "\udcff"])
@pytest.mark.gen_test
async def test_f04_bad_name(io_loop: VirtualTimeLoop, witnessed: Any, host: Any) -> None:
    with io_loop.real_time():
        witness = witnessed(host, 7147, backoff=Backoff(first=0.01, maximum=0.01))
        while len(witness.failures) < 3:
            await gen.sleep(0.01)
    assert all(isinstance(exc, socket.gaierror) for exc in witness.failures)
    client = witness.client
    await client.wait_disconnected()
    with pytest.raises(NotConnected) as caught:
        await client.request("help")
    assert caught.value.__cause__ is client.last_exc


@pytest.mark.parametrize("code", RESOLVER_ERRORS)
@pytest.mark.gen_test
async def test_f04_name_server_says_no(
    monkeypatch: pytest.MonkeyPatch, io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, code: Any
) -> None:
    def getaddrinfo(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(code, "no")

    with monkeypatch.context() as patch, io_loop.real_time():
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        witness = witnessed("localhost", device.port, backoff=Backoff(first=0.01, maximum=0.01))
        while len(witness.failures) < 3:
            await gen.sleep(0.01)
    assert all(isinstance(exc, socket.gaierror) and exc.errno == code for exc in witness.failures)
    with io_loop.real_time():
        await witness.client.wait_connected()


# F5


@pytest.mark.gen_test
async def test_f05_look_up_fails_then_succeeds(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    error = socket.gaierror(socket.EAI_AGAIN, "try again")
    resolver = ScriptedResolver(error, error, error, [(device.host, device.port)])
    witness = witnessed("device.example", 7147, resolver=resolver)
    await witness.client.wait_connected()
    assert witness.heard == ["failed"] * 3 + ["connected"]
    assert io_loop.now == pytest.approx(1 + 2 + 4)
    assert resolver.asked == [("device.example", 7147)] * 4


@pytest.mark.gen_test
async def test_f05_look_up_has_no_answer(device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed("device.example", 7147, resolver=ScriptedResolver([], [(device.host, device.port)]))
    await witness.client.wait_connected()
    assert [exc.errno for exc in witness.failures] == [socket.EAI_NONAME]


@pytest.mark.gen_test
async def test_f05_the_device_moves(device: FakeDevice, witnessed: Any) -> None:
    with FakeDevice(host="127.0.0.2") as other:
        resolver = ScriptedResolver([(device.host, device.port)], [(other.host, other.port)])
        client = witnessed("device.example", 7147, resolver=resolver).client
        await client.wait_connected()
        device.drop_all()
        await client.wait_disconnected()
        await client.wait_connected()
        assert (device.accepted, other.accepted) == (1, 1)
        client.close()


# F6


@pytest.mark.gen_test
async def test_f06_look_up_hangs(
    monkeypatch: pytest.MonkeyPatch,
    io_loop: VirtualTimeLoop,
    device: FakeDevice,
    witnessed: Any,
    record_property: Callable[[str, object], None],
) -> None:
    before = threading.active_count()
    with hung_look_up(monkeypatch, "device.example") as threads:
        witnesses = [witnessed("device.example", 7147) for _ in range(3)]
        await gen.sleep(100)
        assert witnesses[0].attempts == pytest.approx([0, 11, 23, 37, 55, 81])
        for witness in witnesses:
            assert [type(exc) for exc in witness.failures] == [ConnectTimeout] * 6
            assert "looked up" in str(witness.failures[0])
        assert len(threads) == 1
        assert threading.active_count() == before + 1
        record_property("detected_after", witnesses[0].times[0])
        # Another name is not held up by it.
        with io_loop.real_time():
            await witnessed("localhost", device.port).client.wait_connected()
        for witness in witnesses:
            witness.client.close()
            now = io_loop.now
            await witness.client.wait_closed()
            assert io_loop.now == now


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f06_close_does_not_wait_for_the_look_up(monkeypatch: pytest.MonkeyPatch, witnessed: Any) -> None:
    with hung_look_up(monkeypatch, "device.example"):
        client = witnessed("device.example", 7147).client
        await gen.sleep(0.01)
        assert lookup.outstanding() == 1
        start = time.monotonic()
        client.close()
        await client.wait_closed()
        assert time.monotonic() - start < 0.1


@pytest.mark.gen_test
async def test_f06_the_answer_comes_too_late(
    monkeypatch: pytest.MonkeyPatch, io_loop: VirtualTimeLoop, witnessed: Any
) -> None:
    # The second attempt waits for the answer to the question of the first: there is one thread for a name.
    with hung_look_up(monkeypatch, "device.example"):
        witness = witnessed("device.example", 7147)
        await gen.sleep(15)
        assert witness.heard == ["failed"]
    with io_loop.real_time():
        while len(witness.failures) < 2:
            await gen.sleep(0.001)
    assert isinstance(witness.failures[1], socket.gaierror)


@pytest.mark.gen_test
async def test_f06_resolver_never_answers(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    resolver = ScriptedResolver(None, None, [(device.host, device.port)])
    witness = witnessed("device.example", 7147, resolver=resolver)
    await witness.client.wait_connected()
    assert [type(exc) for exc in witness.failures] == [ConnectTimeout] * 2
    assert io_loop.now == pytest.approx(10 + 1 + 10 + 2)
    assert all(future.cancelled() for future in resolver.unanswered)


# F7


@pytest.mark.parametrize("port", [0, -1, 65536, 70000, "0", "70000", "http", "", "-1", "1.0"])
def test_f07_no_such_port(io_loop: VirtualTimeLoop, port: Any) -> None:
    with pytest.raises(ValueError):
        Client("127.0.0.1", port)


@pytest.mark.parametrize("port", [None, 7147.0, b"7147", [7147], True])
def test_f07_port_is_no_number(io_loop: VirtualTimeLoop, port: Any) -> None:
    with pytest.raises(TypeError):
        Client("127.0.0.1", port)


@pytest.mark.parametrize(("host", "error"), [("", ValueError), (None, TypeError), (b"localhost", TypeError)])
def test_f07_no_host(io_loop: VirtualTimeLoop, host: Any, error: Any) -> None:
    with pytest.raises(error):
        Client(host, 7147)


@pytest.mark.gen_test
async def test_f07_good_ports(device: FakeDevice, witnessed: Any) -> None:
    client = witnessed(device.host, str(device.port)).client
    assert client.port == device.port
    await client.wait_connected()


# F8


@pytest.mark.gen_test
async def test_f08_ipv6_black_hole(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    try:
        stack = contextlib.ExitStack()
        hole = stack.enter_context(blackhole("::1"))
    except OSError as exc:
        pytest.skip(f"no IPv6: {exc}")
    with stack:
        port = hole.getsockname()[1]
        resolver = ScriptedResolver([("::1", port), ("::1", port), (device.host, device.port)])
        client = witnessed("device.example", 7147, resolver=resolver).client
        await client.wait_connected()
        assert io_loop.now <= 0.5
        assert syn_sent(port) == 0
        record_property("detected_after", io_loop.now)


@pytest.mark.gen_test
async def test_f08_first_of_two_is_a_black_hole(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    with blackhole("127.0.0.2") as hole:
        port = hole.getsockname()[1]
        resolver = ScriptedResolver([("127.0.0.2", port), (device.host, device.port)])
        client = witnessed("device.example", 7147, resolver=resolver).client
        await client.wait_connected()
        assert 0.1 <= io_loop.now <= 0.6
        assert syn_sent(port) == 0
        record_property("detected_after", io_loop.now)


@pytest.mark.gen_test
async def test_f08_a_refusal_does_not_wait(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    with FakeDevice(host="127.0.0.2") as refusing:
        refusing.stop()
        resolver = ScriptedResolver([(refusing.host, refusing.port), (device.host, device.port)])
        await witnessed("device.example", 7147, resolver=resolver).client.wait_connected()
        assert io_loop.now == 0


@pytest.mark.gen_test
async def test_f08_all_refuse(witnessed: Any) -> None:
    with FakeDevice(host="127.0.0.2") as one, FakeDevice(host="127.0.0.3") as two:
        one.stop()
        two.stop()
        resolver = ScriptedResolver([(one.host, one.port), (two.host, two.port)])
        witness = witnessed("device.example", 7147, resolver=resolver)
        await gen.sleep(0.5)
        (exc,) = witness.failures
        assert isinstance(exc, ConnectionRefusedError)
        assert isinstance(exc.__cause__, AddressErrors)
        assert {name: type(error) for name, error in exc.__cause__.errors.items()} == {
            one.address: ConnectionRefusedError,
            two.address: ConnectionRefusedError,
        }


@pytest.mark.gen_test
async def test_f08_all_are_black_holes(io_loop: VirtualTimeLoop, witnessed: Any) -> None:
    with blackhole("127.0.0.2") as one, blackhole("127.0.0.3") as two:
        resolver = ScriptedResolver([one.getsockname(), two.getsockname()])
        witness = witnessed("device.example", 7147, resolver=resolver)
        await gen.sleep(5)
        assert [syn_sent(hole.getsockname()[1]) for hole in (one, two)] == [1, 1]
        await gen.sleep(5.5)
        (exc,) = witness.failures
        assert isinstance(exc, ConnectTimeout)
        assert witness.times == [pytest.approx(10)]
        assert len(exc.__cause__.errors) == 2  # type: ignore[union-attr]
        assert [syn_sent(hole.getsockname()[1]) for hole in (one, two)] == [0, 0]


def test_f08_families_alternate() -> None:
    from katcp_tornado.transport.dialer import interleave

    six = addresses(("::1", 1), ("::2", 1), ("::3", 1))
    four = addresses(("127.0.0.1", 1))
    assert interleave(six + four) == [six[0], four[0], six[1], six[2]]
