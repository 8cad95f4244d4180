"""F47: TLS that has to read before it can write, or to write before it can read, and peers that are silent or deaf."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from tls_tools import MIB, Peer, client_context, server_context
from tornado import gen

from katcp_tornado import Backoff, Client, DeviceDisconnected, HandshakeTimeout, RequestTimeout, WriteBufferFull

GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"


class Device(Peer):
    """Answers ?echo, over TLS."""

    rest = b""

    def heard(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            name, _, arguments = line.partition(b" ")
            self.tls.write(b"!%s ok %s\n" % (name[1:], arguments))


class Server:
    """A port of this machine, where each connection gets a `Device`."""

    def __init__(self, io_loop: Any) -> None:
        self.io_loop = io_loop
        self.context = server_context()
        self.peers: list[Device] = []
        self.small = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        io_loop.add_handler(self.listener, self.accept, io_loop.READ)

    def accept(self, *_: Any) -> None:
        sock, _address = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.peers.append(Device(self.io_loop, sock, self.context))

    async def connect(self, **options: Any) -> tuple[Client, Device]:
        client = Client("127.0.0.1", self.port, ssl_options=client_context(), backoff=Backoff(first=1), **options)
        while not (self.peers and self.peers[-1].up):
            await self.io_loop.idle()
        self.peers[-1].send(GREETING)
        await client.wait_connected(timeout=5)
        return client, self.peers[-1]

    def close(self) -> None:
        self.io_loop.remove_handler(self.listener)
        self.listener.close()
        for peer in self.peers:
            if peer.sock.fileno() != -1:
                peer.close()


@pytest.fixture
def server(io_loop: Any) -> Iterator[Server]:
    server = Server(io_loop)
    yield server
    server.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the client has called its encrypted socket. One that is called for nothing, for ever, breaks."""
    calls = {"send": 0, "recv_into": 0}

    def counted(name: str) -> Callable[..., int]:
        original = getattr(ssl.SSLSocket, name)

        def call(self: ssl.SSLSocket, *args: Any) -> Any:
            calls[name] += 1
            if calls[name] > 10_000:
                raise OSError("the loop is kept busy")
            return original(self, *args)

        return call

    for name in calls:
        monkeypatch.setattr(ssl.SSLSocket, name, counted(name))
    return calls


@pytest.mark.gen_test
async def test_f47_a_renegotiation_that_the_device_does_not_go_on_with(
    io_loop: Any, server: Server, calls: dict[str, int]
) -> None:
    """TLS waits for the device before it sends anything more, and the socket could be written to all the time."""
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    client, device = await server.connect()
    device.renegotiate()
    device.stop_reading()
    await io_loop.idle()
    with pytest.raises(RequestTimeout):
        await client.request("echo", "first")
    second = client.request("echo", "second", timeout=100)
    assert calls["send"] < 10 and calls["recv_into"] < 10
    assert io_loop.now == 30
    device.resume_reading()
    assert (await second).arguments == [b"second"]
    assert (await client.request("echo", "x" * MIB)).arguments == [b"x" * MIB]
    assert client.stats.generation == 1
    client.close()


@pytest.mark.gen_test
async def test_f47_key_updates_of_a_device_that_does_not_read(
    io_loop: Any, server: Server, calls: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS has to answer each before it reads on, and the socket could be read from all the time."""
    made = socket.socket.connect_ex

    def small(sock: socket.socket, address: Any) -> int:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return made(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", small)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client, device = await server.connect()
    heard: list[Any] = []
    client.add_inform_callback("late", heard.append)
    device.stop_reading()
    before = 0
    while calls["recv_into"] > before:  # until its answers have filled what the system holds for the device
        before = calls["recv_into"]
        for _ in range(20):
            device.update_key()
        await io_loop.idle()
    device.send(b"#late 1\n")
    await gen.sleep(5)
    assert calls["recv_into"] == before and heard == []
    asked = client.request("echo", "a")
    await gen.sleep(5)
    assert calls["recv_into"] < before + 5
    device.resume_reading()
    assert (await asked).arguments == [b"a"]
    assert len(heard) == 1 and client.stats.generation == 1
    client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.gen_test
async def test_f47_a_device_that_does_not_read(
    io_loop: Any, server: Server, calls: dict[str, int], version: ssl.TLSVersion
) -> None:
    server.context.maximum_version = version
    client, device = await server.connect(max_write_buffer=MIB)
    device.stop_reading()
    pending = [client.request("echo", "x" * 100_000, timeout=None) for _ in range(200)]
    await io_loop.idle()
    full = [future for future in pending if future.done()]
    assert full and all(isinstance(future.exception(), WriteBufferFull) for future in full)
    before = dict(calls)
    device.send(b"#still here\n")
    await gen.sleep(1000)
    assert calls["send"] == before["send"] and client.stats.informs == 2
    client.close()
    assert all(future.done() for future in pending)


@pytest.mark.gen_test
async def test_f47_a_farewell_and_nothing_after_it(io_loop: Any, server: Server, calls: dict[str, int]) -> None:
    """A close_notify ends the conversation, though TCP stays up."""
    client, device = await server.connect()
    device.say_goodbye()
    await client.wait_disconnected(timeout=1)
    assert type(client.last_exc) is DeviceDisconnected
    client.close()


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.gen_test
async def test_f47_a_silent_peer(io_loop: Any, server: Server, calls: dict[str, int], greets: bool) -> None:
    """Deaf to TLS, or silent once that is up: the error tells which."""
    failures: list[Optional[BaseException]] = []
    if not greets:
        io_loop.remove_handler(server.listener)
    client = Client("127.0.0.1", server.port, ssl_options=client_context(), handshake_timeout=7)
    client.add_failed_connect_callback(failures.append)
    await gen.sleep(7)
    (error,) = failures
    assert isinstance(error, HandshakeTimeout)
    what = "the device has not sent its protocol version" if greets else "TLS has not been established"
    assert str(error) == f"{what} within 7 s"
    client.close()
    if not greets:
        io_loop.add_handler(server.listener, server.accept, io_loop.READ)
