"""Code of the user's that the client calls in the midst of a step, and that does what it should not."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any, Callable, Optional

import pytest
from tornado import gen
from tornado.netutil import Resolver

from katcp_tornado import Backoff, Client, State, WaitTimeout, register_type
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop
from katcp_tornado.transport import dialer, forks


class Framework(BaseException):
    """As that of pytest.fail()."""


class Nasty:
    """An argument whose encoder raises when it is encoded again, for the connection that has come up."""

    error: Optional[BaseException] = None
    times = 0


def encode_nasty(value: Nasty) -> bytes:
    value.times += 1
    if value.times > 1 and value.error is not None:
        raise value.error
    return b"nasty"


register_type(Nasty, encode=encode_nasty, decode=lambda raw: Nasty())


def run(io_loop: VirtualTimeLoop, function: Callable[[], Any]) -> int:
    """Runs the loop on after each interrupt; returns how many there were."""
    interrupts = 0
    done = io_loop.asyncio_loop.create_task(function())
    done.add_done_callback(lambda _: io_loop.stop())
    while not done.done():
        try:
            io_loop.start()
        except KeyboardInterrupt:
            interrupts += 1
    done.result()
    return interrupts


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Framework("no"), LookupError("no")], ids=repr)
def test_an_encoder(io_loop: VirtualTimeLoop, device: FakeDevice, error: BaseException) -> None:
    """The request settles, and so do the others that waited for the connection."""
    nasty = Nasty()
    nasty.error = error

    async def test() -> None:
        async with Client(device.host, device.port) as client:
            options: dict[str, Any] = {"wait_connected": True, "timeout": None}
            requests = [client.request("echo", value, **options) for value in (1, nasty, 2)]
            await gen.sleep(1)
            assert all(request.done() for request in requests)
            assert [requests[i].result().arguments for i in (0, 2)] == [[b"1"], [b"2"]]
            if isinstance(error, KeyboardInterrupt):
                assert requests[1].cancelled()
            else:
                assert requests[1].exception() is error

    assert run(io_loop, test) == isinstance(error, KeyboardInterrupt)


class Raising(Resolver):
    """Raises at first, when it is called or in its coroutine, then finds the device."""

    def initialize(self, error: BaseException, at_once: bool) -> None:
        self.errors = [error]
        self.at_once = at_once

    def resolve(self, host: str, port: int, family: Any = None) -> Any:
        if self.errors and self.at_once:
            raise self.errors.pop()
        return self.find(port)

    async def find(self, port: int) -> Any:
        if self.errors:
            raise self.errors.pop()
        return [(socket.AF_INET, ("127.0.0.1", port))]


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Framework, Mute])
def test_a_resolver(
    io_loop: VirtualTimeLoop, device: FakeDevice, error: type[BaseException], at_once: bool, loop_errors: list[str]
) -> None:
    """The attempt has failed, though it has no deadline; the next one begins."""
    failures: list[BaseException] = []

    async def test() -> None:
        options: dict[str, Any] = {"resolver": Raising(error=error(), at_once=at_once), "connect_timeout": None}
        async with Client("device", device.port, backoff=Backoff(minimum=1, first=1), **options) as client:
            client.add_failed_connect_callback(failures.append)
            with pytest.raises(WaitTimeout):
                await client.wait_connected(timeout=0.5)
            assert client.state is State.SLEEPING and "SLEEPING" in repr(client)
            await client.wait_connected(timeout=5)

    assert run(io_loop, test) == (error is KeyboardInterrupt)
    (failure,) = failures
    assert isinstance(failure, OSError) if error is KeyboardInterrupt else isinstance(failure, error)


class Context(ssl.SSLContext):
    """Cannot make a socket."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> Any:
        raise LookupError("no token")


@pytest.mark.gen_test
async def test_a_context_of_tls(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    options: dict[str, Any] = {"ssl_options": context, "handshake_timeout": None, "connect_timeout": None}
    async with Client(device.host, device.port, **options) as client:
        await gen.sleep(20)
        assert client.stats.attempts > 2 and isinstance(client.last_exc, LookupError)


@pytest.mark.gen_test
async def test_a_callback_without_a_name(device: FakeDevice) -> None:
    """What it cannot take is logged, and the link goes on."""

    class Unnamed:
        def __call__(self, number: int) -> None:
            raise AssertionError

        def __repr__(self) -> str:
            raise RuntimeError("no name")

    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        client.add_inform_callback("x", Unnamed())
        device.send_raw(b"#x no-number\n#x\n")
        await gen.sleep(1)
        assert client.is_connected and client.stats.connects == 1


@pytest.mark.gen_test
async def test_a_system_that_watches_no_more_sockets(
    io_loop: VirtualTimeLoop, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As epoll has it at max_user_watches."""
    loop: Any = io_loop.asyncio_loop
    add_writer, left = loop.add_writer, [3]

    def refuse(*args: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return add_writer(*args)

    monkeypatch.setattr(dialer, "_is_connected", lambda sock: False)
    monkeypatch.setattr(loop, "add_writer", refuse)
    failures: list[Any] = []
    async with Client(device.host, device.port, connect_timeout=None) as client:
        client.add_failed_connect_callback(failures.append)
        await client.wait_connected(timeout=60)
    assert [failure.errno for failure in failures] == [errno.ENOSPC] * 3


def test_a_fork_in_the_midst_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong with one owner harms no other."""
    told: list[bool] = []

    class Owner:
        io_loop: Any = None

        def forked(self, private: bool) -> None:
            told.append(private)
            raise AttributeError("the socket is None")

    class Loop:
        asyncio_loop = None

    owners = [Owner(), Owner(), Owner()]
    owners[1].io_loop = owners[2].io_loop = Loop()
    monkeypatch.setattr(forks, "_owners", owners)
    forks._after_in_child()
    assert told == [False, False]
