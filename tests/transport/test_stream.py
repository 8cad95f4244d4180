"""Streams, plain and encrypted, over real sockets: what is read, what is sent, and how they end."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import ssl
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from tls_tools import Peer, client_context, server_context
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import Client, FailReply, WriteBufferFull
from katcp_tornado.protocol.counters import Counters
from katcp_tornado.testing import Behaviour, Drop, FakeDevice, Reset, VirtualTimeLoop
from katcp_tornado.transport.stream import CHUNK, Stream
from katcp_tornado.transport.tls import Handshake, TLSStream

MIB = 1024**2
RST = struct.pack("ii", 1, 0)


class Reader:
    """Where a stream leads: what was received, and how it ended."""

    def __init__(
        self, io_loop: VirtualTimeLoop, sock: Any, *, kind: Any = Stream, max_write: Any = MIB, start: bool = True
    ) -> None:
        self.io_loop = io_loop
        self.chunks: list[Any] = []
        self.ends: list[Any] = []  # what `lost` was called with
        self.events: list[Any] = []  # the order of both
        self.counters = Counters()
        self.on_chunk = lambda data: None
        self.stream = kind(sock, self.lost, max_write, self.counters)
        if start:
            self.start()

    def start(self) -> None:
        self.stream.start(self.receive)

    def receive(self, data: Any) -> None:
        assert isinstance(data, memoryview)
        assert not self.ends, "data after the end"
        self.counters.bytes_in += len(data)  # as a session does
        self.chunks.append(bytes(data))
        self.events.append("data")
        self.on_chunk(data)  # type: ignore[no-untyped-call]

    def lost(self, error: Any) -> None:
        assert self.stream.closed(), "it is closed by the time this is told"
        self.ends.append(error)
        self.events.append("end")

    @property
    def data(self) -> Any:
        return b"".join(self.chunks)


def tcp_pair() -> Any:
    """Two ends of a connection over loopback, neither of which blocks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return one, other


def unix_pair() -> Any:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    return pair


@pytest.fixture
def sockets() -> Iterator[Any]:
    """Makes pairs of sockets, and closes them."""
    made = []

    def make(kind: Any = tcp_pair) -> Any:
        pair = kind()
        made.extend(pair)
        return pair

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
def connect(io_loop: VirtualTimeLoop, sockets: Any) -> Iterator[Any]:
    """Makes a Reader and the socket at the other end."""
    readers = []

    def connect(pair: Any = tcp_pair, **options: Any) -> Any:
        ours, theirs = sockets(pair)
        readers.append(Reader(io_loop, ours, **options))
        return readers[-1], theirs

    yield connect
    for reader in readers:
        reader.stream.close()


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def drain(sock: Any) -> Any:
    """All that has come, as far as the kernel has it."""
    data = b""
    while True:
        try:
            chunk = sock.recv(MIB)
        except BlockingIOError:
            return data
        if not chunk:
            return data
        data += chunk


async def collect(io_loop: VirtualTimeLoop, sock: Any, size: Any) -> Any:
    """*size* bytes, which the other end may still have to send."""
    data = b""
    while len(data) < size:
        chunk = drain(sock)
        data += chunk
        if not chunk:
            await io_loop.idle()
            chunk = drain(sock)
            assert chunk, f"nothing more after {len(data)} of {size} bytes"
            data += chunk
    return data


async def fill(io_loop: VirtualTimeLoop, stream: Any) -> Any:
    """Send until it is refused; returns what was accepted, and the error."""
    accepted: list[Any] = []
    for i in range(100_000):
        line = b"%06d" % i * 1000
        try:
            stream.send(line, i % 3 == 0)
        except WriteBufferFull as exc:
            return b"".join(accepted), exc
        accepted.append(line)
        if i % 50 == 0:
            await io_loop.idle()
    raise AssertionError("there is no bound")


class Sends:
    """Counts what goes to the system, call by call."""

    def __init__(self, stream: Any) -> None:
        self.calls: list[Any] = []
        send = stream._send

        def count(data: Any) -> Any:
            size = send(data)
            self.calls.append(size)
            return size

        stream._send = count


# Reading


@pytest.mark.gen_test
@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
async def test_chunks_come_in_order(io_loop: VirtualTimeLoop, connect: Any, pair: Any) -> None:
    reader, peer = connect(pair)
    for i in range(100):
        peer.send(b"%d," % i)
        if i % 7 == 0:
            await io_loop.idle()
    await io_loop.idle()
    assert reader.data == b"".join(b"%d," % i for i in range(100))
    assert reader.ends == []


@pytest.mark.gen_test
async def test_what_was_there_before(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(start=False)
    peer.send(b"early")
    await io_loop.idle()
    assert reader.chunks == []
    reader.start()
    await io_loop.idle()
    assert reader.data == b"early"


@pytest.mark.gen_test
async def test_a_chunk_is_handed_over_in_the_turn_in_which_it_comes(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    for i in range(3):
        peer.send(b"x")
        await io_loop.idle()
        assert len(reader.chunks) == i + 1


@pytest.mark.gen_test
async def test_others_get_their_turn(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """A peer that floods us does not hold the loop: one chunk a turn."""
    reader, peer = connect(unix_pair)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * CHUNK)
    sent = peer.send(b"x" * 4 * CHUNK)
    assert sent > CHUNK
    turns = 0
    while sum(map(len, reader.chunks)) < sent:
        await gen.sleep(0)
        turns += 1
        assert len(reader.chunks) <= turns + 1
        assert turns < 1000
    assert max(map(len, reader.chunks)) <= CHUNK


@pytest.mark.gen_test
async def test_when_the_last_byte_came(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    assert reader.stream.last_rx is None
    await gen.sleep(5)
    peer.send(b"x")
    await gen.sleep(5)
    assert reader.stream.last_rx == 5


@pytest.mark.gen_test
async def test_streams_of_one_thread_share_a_buffer(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """... so a chunk is valid only during the call, and each gets its own data all the same."""
    readers = [connect() for _ in range(5)]
    for i, (_, peer) in enumerate(readers):
        peer.send(b"%d" % i * 1000)
    await io_loop.idle()
    assert [reader.data for reader, _ in readers] == [b"%d" % i * 1000 for i in range(5)]
    assert len({id(reader.stream._chunk.obj) for reader, _ in readers}) == 1


@pytest.mark.gen_test
async def test_the_loop_reads_without_the_detour_by_iostream(
    io_loop: VirtualTimeLoop, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But once, after what has to wait was written, which is IOStream's to do."""
    reader, peer = connect()
    detours = []
    handle_read = Stream._handle_read
    monkeypatch.setattr(Stream, "_handle_read", lambda self: detours.append(1) or handle_read(self))  # type: ignore[func-returns-value]
    for i in range(5):
        peer.send(b"%d" % i)
        await io_loop.idle()
    assert reader.data == b"01234"
    assert not detours and not io_loop.handlers
    accepted, _ = await fill(io_loop, reader.stream)
    assert await collect(io_loop, peer, len(accepted)) == accepted
    await io_loop.idle()
    assert not reader.stream.writing()
    for i in range(5, 8):
        peer.send(b"%d" % i)
        await io_loop.idle()
    assert reader.data == b"01234567"
    assert len(detours) == 1
    fd = reader.stream.socket.fileno()
    assert list(io_loop.handlers) == [fd]
    reader.stream.close()
    assert io_loop.handlers == {}
    assert not io_loop.asyncio_loop.remove_reader(fd)


@pytest.mark.gen_test
async def test_a_closed_client_leaves_no_stream_to_the_garbage_collector(
    io_loop: VirtualTimeLoop, device: FakeDevice
) -> None:
    client = await Client.connect("127.0.0.1", device.port)
    await client.request("help")
    stream = weakref.ref(client._link._transport)
    gc.collect()
    gc.disable()
    try:
        client.close()
        await io_loop.idle()
        assert stream() is None
        kinds = {type(thing).__name__ for thing in gc.get_objects()}
        assert not kinds & {"Session", "RequestQueues", "Dial"}
    finally:
        gc.enable()


# The end


@pytest.mark.gen_test
@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
async def test_end_of_file(io_loop: VirtualTimeLoop, connect: Any, pair: Any) -> None:
    reader, peer = connect(pair)
    peer.send(b"last words")
    peer.close()
    await io_loop.idle()
    assert reader.data == b"last words"
    assert reader.ends == [None]
    assert reader.events[-1] == "end"
    assert reader.stream.closed()


@pytest.mark.gen_test
async def test_end_of_file_after_a_megabyte(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    data = os.urandom(MIB)
    peer.setblocking(True)
    with io_loop.real_time():
        await io_loop.run_in_executor(None, lambda: (peer.sendall(data), peer.close()))
    await io_loop.idle()
    assert reader.data == data
    assert reader.ends == [None]


@pytest.mark.gen_test
async def test_half_a_close(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """A peer that only says that it sends no more has ended the connection, for us."""
    reader, peer = connect()
    peer.shutdown(socket.SHUT_WR)
    await io_loop.idle()
    assert reader.ends == [None]
    assert peer.recv(1) == b""


@pytest.mark.gen_test
async def test_a_reset_after_data(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """F16: what came before it is handed over first."""
    reader, peer = connect()
    peer.send(b"last words")
    reset(peer)
    await io_loop.idle()
    assert reader.data == b"last words"
    (error,) = reader.ends
    assert type(error) is ConnectionResetError
    assert reader.events == ["data", "end"]


@pytest.mark.gen_test
async def test_a_reset_in_a_later_turn(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    peer.send(b"words")
    await io_loop.idle()
    reset(peer)
    await io_loop.idle()
    assert [type(error) for error in reader.ends] == [ConnectionResetError]


@pytest.mark.gen_test
async def test_ended_before_the_start(io_loop: VirtualTimeLoop, connect: Any) -> None:
    for end, expected in ((socket.socket.close, type(None)), (reset, ConnectionResetError)):
        reader, peer = connect(start=False)
        peer.send(b"words")
        end(peer)
        reader.start()
        await io_loop.idle()
        assert reader.data == b"words"
        assert [type(error) for error in reader.ends] == [expected]


@pytest.mark.gen_test
async def test_close(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    peer.send(b"never heard")
    reader.stream.close()
    reader.stream.close()
    assert reader.stream.closed()
    await io_loop.idle()
    assert reader.events == []
    with pytest.raises(ConnectionResetError):  # since there was something that we did not read
        peer.recv(1)


@pytest.mark.gen_test
async def test_close_inside_receive(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    reader.on_chunk = lambda data: reader.stream.close()
    peer.send(b"enough")
    await io_loop.idle()
    peer.setblocking(True)
    peer.settimeout(1)
    assert peer.recv(1) == b""
    assert reader.chunks == [b"enough"]
    assert reader.ends == []


@pytest.mark.gen_test
async def test_close_inside_receive_with_much_more_to_come(
    io_loop: VirtualTimeLoop, connect: Any, loop_errors: Any
) -> None:
    reader, peer = connect(unix_pair)
    reader.on_chunk = lambda data: reader.stream.close()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * CHUNK)
    peer.send(b"x" * 3 * CHUNK)
    await io_loop.idle()
    assert len(reader.chunks) == 1
    assert reader.ends == []


@pytest.mark.gen_test
async def test_close_inside_lost(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    seen = []

    def lost(error: Any) -> None:
        seen.append(error)
        reader.stream.close()

    reader.stream._lost = lost
    peer.close()
    await io_loop.idle()
    assert seen == [None]


@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
@pytest.mark.gen_test
async def test_more_is_to_come(io_loop: VirtualTimeLoop, connect: Any, pair: Any) -> None:
    reader, peer = connect(pair, start=False)
    reader.stream.start(lambda data: reader.receive(data) or True)
    for _ in range(3):  # each is acknowledged at once, where that can be asked for
        peer.send(b"x")
        await gen.sleep(0.01)
    peer.close()
    await gen.sleep(0.01)
    assert (reader.data, reader.ends) == (b"xxx", [None])


@pytest.mark.gen_test
async def test_send_inside_receive(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    reader.on_chunk = lambda data: reader.stream.send(bytes(data).upper(), True)
    peer.send(b"hello")
    await io_loop.idle()
    assert drain(peer) == b"HELLO"


@pytest.mark.gen_test
async def test_an_exception_inside_receive(io_loop: VirtualTimeLoop, connect: Any, loop_errors: list[str]) -> None:
    """A fault of the library's own: the conversation is over, whoever owns it hears, and it is logged."""
    reader, peer = connect()
    error = ZeroDivisionError("mine")

    def fail(data: Any) -> None:
        raise error

    reader.on_chunk = fail
    peer.send(b"x")
    peer.send(b"y")
    await io_loop.idle()
    assert reader.ends == [error]
    assert reader.events == ["data", "end"]
    assert reader.stream.closed()
    assert any("mine" in error for error in loop_errors)
    loop_errors.clear()


def test_an_interrupt_inside_receive_goes_through(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()

    def interrupt(data: Any) -> None:
        raise KeyboardInterrupt

    reader.on_chunk = interrupt
    peer.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        io_loop.start()
    assert [type(error) for error in reader.ends] == [ConnectionAbortedError], "which is no cause of a lost link"
    assert reader.stream.closed()


@pytest.mark.gen_test
async def test_nothing_is_left_on_the_loop(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, _ = connect()
    fd = reader.stream.socket.fileno()
    reader.stream.close()
    assert not io_loop.asyncio_loop.remove_reader(fd)
    await io_loop.idle()
    assert reader.stream.socket is None


# Sending


@pytest.mark.gen_test
async def test_urgent_bytes_go_out_at_once(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(unix_pair)
    reader.stream.send(b"now", True)
    assert drain(peer) == b"now"
    assert reader.stream.backlog == 0
    assert reader.counters.bytes_out == 3


@pytest.mark.gen_test
async def test_the_others_go_out_together_once_a_turn(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(unix_pair)
    sends = Sends(reader.stream)
    for i in range(10):
        reader.stream.send(b"%d" % i, False)
    assert drain(peer) == b""
    assert reader.stream.backlog == 10
    await io_loop.idle()
    assert drain(peer) == b"0123456789"
    assert sends.calls == [10]
    assert reader.stream.backlog == 0
    reader.stream.send(b"again", False)
    await io_loop.idle()
    assert drain(peer) == b"again"
    assert sends.calls == [10, 5]


@pytest.mark.gen_test
async def test_urgent_bytes_do_not_overtake(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(unix_pair)
    reader.stream.send(b"one ", False)
    reader.stream.send(b"two ", True)
    reader.stream.send(b"three", False)
    await io_loop.idle()
    assert drain(peer) == b"one two three"


@pytest.mark.gen_test
async def test_what_is_gathered_when_it_is_closed_is_dropped(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    reader.stream.send(b"never", False)
    reader.stream.close()
    await io_loop.idle()
    assert drain(peer) == b""


@pytest.mark.gen_test
async def test_a_peer_that_does_not_read(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """R24: bounded; what is refused is not sent, what was accepted is, in order, as soon as the peer reads."""
    reader, peer = connect(max_write=MIB)
    accepted, error = await fill(io_loop, reader.stream)
    assert re.fullmatch(r"its \d+ bytes do not fit: \d+ bytes wait to be sent already", str(error))
    assert MIB - 6000 < reader.stream.backlog <= MIB
    assert reader.counters.bytes_out == len(accepted)
    # One that still fits is still accepted.
    rest = b"x" * (MIB - reader.stream.backlog)
    reader.stream.send(rest, True)
    with pytest.raises(WriteBufferFull):
        reader.stream.send(b"y", False)
    data = await collect(io_loop, peer, len(accepted) + len(rest))
    assert data == accepted + rest
    await io_loop.idle()
    assert reader.stream.backlog == 0
    reader.stream.send(b"good again", True)
    await io_loop.idle()
    assert drain(peer) == b"good again"


@pytest.mark.gen_test
@pytest.mark.parametrize("urgent", [True, False])
async def test_the_bound_is_exact(io_loop: VirtualTimeLoop, connect: Any, urgent: bool) -> None:
    reader, peer = connect(max_write=1000)
    reader.stream.send(b"x" * 600, False)
    reader.stream.send(b"x" * 400, urgent)
    assert reader.stream.backlog == 1000
    with pytest.raises(WriteBufferFull):
        reader.stream.send(b"x", urgent)
    with pytest.raises(WriteBufferFull):
        Stream.send(connect(max_write=1000)[0].stream, b"x" * 1001, urgent)
    await io_loop.idle()
    assert len(drain(peer)) == 1000


@pytest.mark.gen_test
async def test_a_close_is_immediate_however_much_waits(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, _ = connect(max_write=64 * MIB)
    reader.stream.send(b"x" * 32 * MIB, True)
    assert reader.stream.backlog > 0
    reader.stream.close()
    assert reader.stream.closed() and reader.stream.socket is None
    await io_loop.idle()
    assert reader.events == []
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_reading_goes_on_while_writing_waits(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(max_write=64 * MIB)
    reader.stream.send(b"x" * 16 * MIB, True)
    await io_loop.idle()
    peer.send(b"hello")
    await io_loop.idle()
    assert reader.data == b"hello"


@pytest.mark.gen_test
async def test_a_write_to_a_peer_that_has_reset(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """What can still be read is read first; then comes the error of the write, or of the reset."""
    reader, peer = connect(start=False)
    peer.send(b"last words")
    reset(peer)
    reader.start()  # nothing was read so far
    reader.stream.send(b"too late", True)
    assert reader.ends == []  # not while we are sending
    reader.stream.send(b"much too late", True)
    await io_loop.idle()
    assert reader.data == b"last words"
    assert reader.events == ["data", "end"]
    (error,) = reader.ends
    assert isinstance(error, ConnectionError), "a reset is no plain end of file"


@pytest.mark.gen_test
async def test_a_write_to_a_peer_that_has_reset_with_much_to_read(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    await io_loop.idle()
    assert peer.send(os.urandom(3 * CHUNK)) > CHUNK
    reset(peer)
    there = reader.stream.socket.recv(MIB, socket.MSG_PEEK)  # a reset takes with it what had no room
    assert len(there) > CHUNK
    reader.stream.send(b"too late", True)
    await io_loop.idle()
    assert reader.data == there
    (error,) = reader.ends
    assert isinstance(error, ConnectionError), "a reset is no plain end of file"


@pytest.mark.gen_test
async def test_what_there_is_after_a_write_error_is_read_in_turns(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    await io_loop.idle()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * CHUNK)
    for _ in range(16):
        peer.send(os.urandom(CHUNK))
    reset(peer)
    there = reader.stream.socket.recv(MIB, socket.MSG_PEEK)
    assert len(there) > 2 * CHUNK
    reader.stream.send(b"too late", True)
    turns = 0
    while not reader.ends:
        before = len(reader.chunks)
        await asyncio.sleep(0)  # one turn
        turns += 1
        assert len(reader.chunks) <= before + 2  # by the loop, and by us
        assert turns < 1000
    assert reader.data == there


@pytest.mark.gen_test
async def test_a_write_to_a_peer_that_has_closed(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect(start=False)
    peer.send(b"last words")
    peer.close()
    reader.start()
    for _ in range(3):
        if not reader.stream.closed():
            reader.stream.send(b"too late", True)
            await io_loop.idle()
    assert reader.data == b"last words"
    assert len(reader.ends) == 1


@pytest.mark.gen_test
async def test_a_write_error_while_bytes_wait(io_loop: VirtualTimeLoop, connect: Any) -> None:
    """Tornado is writing by itself when the peer resets: no error of its own is logged, and we hear once."""
    reader, peer = connect(max_write=64 * MIB)
    reader.stream.send(b"x" * 16 * MIB, True)
    await io_loop.idle()
    reset(peer)
    await io_loop.idle()
    (error,) = reader.ends
    assert isinstance(error, ConnectionError)


@pytest.mark.gen_test
async def test_a_close_before_a_write_error_is_told(io_loop: VirtualTimeLoop, connect: Any) -> None:
    reader, peer = connect()
    reset(peer)
    reader.stream.send(b"x", True)
    reader.stream.close()
    await io_loop.idle()
    assert reader.events == []


# TLS


class Shaking:
    """A Handshake, and what came of it."""

    def __init__(self, io_loop: VirtualTimeLoop, sock: Any, context: ssl.SSLContext, hostname: str) -> None:
        self.started = False
        self.calls: list[Any] = []
        self.done = io_loop.asyncio_loop.create_future()
        self.handshake = Handshake(io_loop, sock, context, hostname, self.answer)
        self.handshake.start()
        self.started = True

    def answer(self, sock: Any, error: Any) -> None:
        assert self.started, "called before start() has returned"
        self.calls.append((sock, error))
        if not self.done.done():
            self.done.set_result((sock, error))


@pytest.fixture
def shake(io_loop: VirtualTimeLoop, sockets: Any) -> Iterator[Any]:
    """Makes a handshake, and the peer."""
    peers, shakings = [], []

    def shake(
        certificate: str = "device.pem", *, context: Any = None, hostname: str = "localhost", peer: Any = Peer
    ) -> Any:
        ours, theirs = sockets()
        if peer is not None:
            peers.append(peer(io_loop, theirs, server_context(certificate)))
        shakings.append(Shaking(io_loop, ours, context or client_context(), hostname))
        return shakings[-1], peers[-1] if peer is not None else theirs

    yield shake
    for shaking in shakings:
        shaking.handshake.close()
        for sock, _ in shaking.calls:
            if sock is not None:
                sock.close()
    for peer in peers:
        peer.close()


@pytest.mark.gen_test
@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "::1", "localhost.", "::1%lo"])
async def test_handshake(io_loop: VirtualTimeLoop, shake: Any, hostname: str) -> None:
    shaking, peer = shake(hostname=hostname)
    sock, error = await shaking.done
    assert error is None
    assert isinstance(sock, ssl.SSLSocket) and sock.cipher() is not None
    assert sock.gettimeout() == 0
    await io_loop.idle()
    assert peer.up
    assert len(shaking.calls) == 1
    assert len(io_loop.handlers) == 1  # the peer's


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("certificate", "hostname", "text"),
    [
        ("device.pem", "device.example", "Hostname mismatch"),
        ("device.pem", "192.0.2.1", "IP address mismatch"),
        ("expired.pem", "localhost", "certificate has expired"),
    ],
)
async def test_a_certificate_that_is_not_good(
    io_loop: VirtualTimeLoop, shake: Any, certificate: str, hostname: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    shaking, _ = shake(certificate, hostname=hostname)
    sock, error = await shaking.done
    assert sock is None
    assert isinstance(error, ssl.SSLCertVerificationError) and text in str(error)
    assert shaking.handshake._sock.fileno() == -1
    assert len(shaking.calls) == 1
    assert caplog.records == []  # Tornado would log each failure by itself


@pytest.mark.gen_test
async def test_an_authority_that_we_do_not_know(shake: Any) -> None:
    shaking, _ = shake(context=ssl.create_default_context())
    sock, error = await shaking.done
    assert sock is None and isinstance(error, ssl.SSLCertVerificationError)


@pytest.mark.gen_test
@pytest.mark.parametrize("hostname", ["foo..bar", "x" * 64, "", "a\x00b"], ids=ascii)
async def test_a_host_name_that_tls_cannot_express(shake: Any, hostname: str) -> None:
    shaking, _ = shake(hostname=hostname)
    sock, error = await shaking.done
    assert sock is None and isinstance(error, (OSError, ValueError))
    assert shaking.handshake._sock.fileno() == -1


@pytest.mark.gen_test
async def test_a_peer_that_does_not_speak_tls(io_loop: VirtualTimeLoop, shake: Any) -> None:
    shaking, peer = shake(peer=None)
    peer.send(b"#version-connect katcp-protocol 5.1-MIB\n")
    sock, error = await shaking.done
    assert sock is None and isinstance(error, ssl.SSLError)


@pytest.mark.gen_test
@pytest.mark.parametrize("end", [socket.socket.close, reset])
async def test_a_peer_that_ends_the_handshake(io_loop: VirtualTimeLoop, shake: Any, end: Any) -> None:
    shaking, peer = shake(peer=None)
    await io_loop.idle()
    end(peer)
    sock, error = await shaking.done
    assert sock is None and isinstance(error, OSError)


@pytest.mark.gen_test
async def test_a_handshake_that_is_given_up(io_loop: VirtualTimeLoop, shake: Any) -> None:
    """At any moment: nothing is called, and the socket is closed."""
    for turns in range(8):
        shaking, peer = shake(peer=None)
        for _ in range(turns):
            await gen.sleep(0)
        shaking.handshake.close()
        shaking.handshake.close()
        await io_loop.idle()
        assert shaking.calls == []
        drain(peer)
        assert peer.recv(1) == b""
        assert io_loop.handlers == {}


@pytest.mark.gen_test
async def test_a_handshake_that_is_done_is_not_closed_again(io_loop: VirtualTimeLoop, shake: Any) -> None:
    shaking, peer = shake()
    sock, _ = await shaking.done
    shaking.handshake.close()
    assert sock.fileno() != -1
    sock.send(b"still up")
    await io_loop.idle()
    assert peer.data == b"still up"


@pytest.fixture
def encrypted(io_loop: VirtualTimeLoop, shake: Any) -> Iterator[Any]:
    """Makes a Reader over TLS, and its peer."""
    readers = []

    async def encrypted(**options: Any) -> Any:
        shaking, peer = shake()
        sock, error = await shaking.done
        assert error is None
        await io_loop.idle()  # in TLS 1.3 the client is ready first
        assert peer.up
        readers.append(Reader(io_loop, sock, kind=TLSStream, **options))
        return readers[-1], peer

    yield encrypted
    for reader in readers:
        reader.stream.close()


@pytest.mark.gen_test
async def test_tls_both_ways(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted()
    reader.stream.send(b"hello", True)
    reader.stream.send(b" and ", False)
    reader.stream.send(b"again", False)
    peer.send(b"welcome")
    await io_loop.idle()
    assert peer.data == b"hello and again"
    assert reader.data == b"welcome"
    assert reader.ends == []


@pytest.mark.gen_test
async def test_tls_what_was_decrypted_already_is_read(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    """Bytes in the buffer of TLS make no event of the loop."""
    reader, peer = await encrypted()
    reader.stream._chunk = memoryview(bytearray(10))  # so that one record makes many chunks
    peer.send(b"0123456789" * 1000)
    await io_loop.idle()
    assert reader.data == b"0123456789" * 1000


@pytest.mark.gen_test
async def test_tls_close_inside_receive(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted()
    reader.stream._chunk = memoryview(bytearray(10))
    reader.on_chunk = lambda data: reader.stream.close()
    peer.send(b"0123456789" * 10)
    await io_loop.idle()
    assert reader.chunks == [b"0123456789"]
    assert reader.ends == []


@pytest.mark.gen_test
async def test_tls_five_megabytes_echoed(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted(max_write=8 * MIB)
    peer.heard = peer.tls.write
    data = os.urandom(5 * MIB)
    for start in range(0, len(data), 300_000):
        reader.stream.send(data[start : start + 300_000], start % 2 == 0)
    for _ in range(1000):
        await io_loop.idle()
        if len(reader.data) == len(data):
            break
    assert reader.data == data
    assert reader.stream.backlog == 0
    assert reader.ends == [] and peer.error is None


@pytest.mark.gen_test
async def test_tls_end_of_file(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    """With the farewell of TLS or without, as many servers do it: a plain end."""
    for goodbye in (True, False):
        reader, peer = await encrypted()
        peer.send(b"last words")
        if goodbye:
            peer.say_goodbye()
        peer.close()
        await io_loop.idle()
        assert reader.data == b"last words"
        assert reader.ends == [None]


@pytest.mark.gen_test
async def test_tls_a_reset_after_data(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted()
    peer.send(b"last words")
    peer.close(reset)
    await io_loop.idle()
    assert reader.data == b"last words"
    (error,) = reader.ends
    assert error is None or type(error) is ConnectionResetError  # Python's ssl takes some for an end of file


@pytest.mark.gen_test
async def test_tls_garbage_in_the_middle(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted()
    peer.send(b"fine")
    await io_loop.idle()
    peer.sock.send(b"this is no record of TLS")
    await io_loop.idle()
    assert reader.data == b"fine"
    (error,) = reader.ends
    assert isinstance(error, ssl.SSLError)


@pytest.mark.gen_test
async def test_tls_a_peer_that_does_not_read(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted(max_write=MIB)
    io_loop.remove_handler(peer.sock)
    accepted, _ = await fill(io_loop, reader.stream)
    assert reader.stream.backlog <= MIB
    io_loop.add_handler(peer.sock, peer.work, IOLoop.READ)
    for _ in range(1000):
        await io_loop.idle()
        if len(peer.data) == len(accepted):
            break
    assert peer.data == accepted
    assert reader.stream.backlog == 0
    io_loop.remove_handler(peer.sock)
    reader.stream.send(b"x" * MIB, True)
    reader.stream.close()
    assert reader.stream.socket is None


@pytest.mark.gen_test
async def test_tls_a_write_to_a_peer_that_has_reset(io_loop: VirtualTimeLoop, encrypted: Any) -> None:
    reader, peer = await encrypted()
    await io_loop.idle()
    peer.send(b"last words")
    peer.close(reset)
    reader.stream.send(b"too late", True)
    reader.stream.send(b"much too late", True)
    await io_loop.idle()
    assert reader.data == b"last words"
    assert reader.events[-1] == "end" and len(reader.ends) == 1


# TLS through a client


@pytest.mark.gen_test
async def test_a_client_over_tls(io_loop: VirtualTimeLoop) -> None:
    with FakeDevice(ssl_options=server_context()) as device:
        device.script(Behaviour(), Drop(after_version=True), Reset(after_version=True))
        async with Client("127.0.0.1", device.port, ssl_options=client_context()) as client:
            await client.wait_connected()
            text = "x" * 5_000_000
            arguments, _ = await client.request("echo", text)
            assert arguments == [text.encode()]
            with pytest.raises(FailReply):
                await client.request("fail", "no")
            device.drop_all()
            await client.wait_disconnected()
            while client.stats.connects < 4:
                await gen.sleep(1)
            assert client.is_connected
            arguments, _ = await client.request("echo", 1)
            assert arguments == [b"1"]


@pytest.mark.gen_test
async def test_a_client_does_not_trust_everybody(
    io_loop: VirtualTimeLoop, loop_errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeDevice(ssl_options=server_context("expired.pem")) as device:
        with pytest.raises(ssl.SSLCertVerificationError):
            await Client.connect("127.0.0.1", device.port, ssl_options=client_context(), auto_reconnect=False)
        await io_loop.idle()
    # the device, whose handshake failed, may say so; the client says it in its own way
    assert [record for record in caplog.records if record.name == "katcp_tornado" and record.exc_info] == []
    loop_errors.clear()


@pytest.mark.gen_test
async def test_a_client_whose_device_does_not_shake_hands(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    """The handshake of TLS is in handshake_timeout."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        port = listener.getsockname()[1]
        with pytest.raises(TimeoutError) as caught:
            await Client.connect(
                "127.0.0.1", port, ssl_options=client_context(), auto_reconnect=False, handshake_timeout=7
            )
    assert type(caught.value).__name__ == "HandshakeTimeout"
    assert str(caught.value) == "TLS has not been established within 7 s"
    assert io_loop.now == 7
