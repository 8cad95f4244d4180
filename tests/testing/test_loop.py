"""VirtualTimeLoop: time that costs nothing, real sockets, and no way to hang."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from katcp_tornado import Client, ConnectTimeout
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop
from katcp_tornado.transport import lookup


@pytest.fixture
def streams(io_loop: VirtualTimeLoop) -> Iterator[Any]:
    ours, theirs = (IOStream(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.gen_test
async def test_a_sleep_takes_no_time(io_loop: VirtualTimeLoop) -> None:
    start = time.monotonic()
    await gen.sleep(3600)
    assert io_loop.now == 3600
    assert time.monotonic() - start < 1


@pytest.mark.gen_test
def test_a_bare_generator_runs_on_it_too(io_loop: VirtualTimeLoop) -> Generator[Any, Any, Any]:
    yield gen.sleep(0.25)
    assert io_loop.now == 0.25


@pytest.mark.gen_test
async def test_asyncio_runs_on_the_same_clock(io_loop: VirtualTimeLoop) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), 10)
    await asyncio.sleep(5)
    assert io_loop.now == 15


@pytest.mark.gen_test
async def test_timers_fire_in_order_and_exactly(io_loop: VirtualTimeLoop) -> None:
    fired = []
    for delay in (0.3, 0.1, 1.0, 0.2, 0.0):
        io_loop.call_later(delay, lambda delay=delay: fired.append((delay, io_loop.now)))
    await gen.sleep(2)
    assert fired == [(delay, pytest.approx(delay, abs=1e-12)) for delay in (0.0, 0.1, 0.2, 0.3, 1.0)]  # type: ignore[comparison-overlap]


@pytest.mark.gen_test
async def test_call_later_passes_arguments_and_can_be_cancelled(io_loop: VirtualTimeLoop) -> None:
    fired: list[Any] = []
    io_loop.call_later(1, fired.append, "kept")
    io_loop.remove_timeout(io_loop.call_later(1, fired.append, "cancelled"))
    await gen.sleep(2)
    assert fired == ["kept"]


@pytest.mark.gen_test
async def test_the_wall_clock_may_step(io_loop: VirtualTimeLoop) -> None:
    start, fired = io_loop.time(), []
    io_loop.call_later(10, lambda: fired.append(io_loop.now))
    io_loop.step_wall_clock(-86400)
    assert io_loop.time() == start - 86400
    await gen.sleep(5)
    io_loop.step_wall_clock(2 * 86400)
    await gen.sleep(10)
    assert io_loop.time() == start + 86400 + 15
    assert io_loop.now == 15
    assert fired == [10]


@pytest.mark.gen_test
async def test_an_absolute_deadline_follows_the_wall_clock(io_loop: VirtualTimeLoop) -> None:
    fired = []
    io_loop.call_at(io_loop.time() + 10, lambda: fired.append(io_loop.now))
    await gen.sleep(11)
    assert fired == [pytest.approx(10, abs=1e-5)]


@pytest.mark.gen_test
async def test_bytes_take_no_time(io_loop: VirtualTimeLoop, streams: Any) -> None:
    ours, theirs = streams
    late = io_loop.call_later(1e-3, pytest.fail, "the clock moved on while there was something to read")
    payload = bytes(8 * 1024**2)
    ours.write(payload)
    assert len(await theirs.read_bytes(len(payload))) == len(payload)
    assert io_loop.now == 0
    io_loop.remove_timeout(late)


@pytest.mark.gen_test
async def test_no_jump_over_an_event(io_loop: VirtualTimeLoop) -> None:
    ours, theirs = socket.socketpair()
    read = asyncio.get_running_loop().create_future()
    timer = io_loop.call_later(1, read.set_result, "the timer was first")
    io_loop.add_handler(ours, lambda sock, _: io_loop.remove_handler(sock) or read.set_result("event"), IOLoop.READ)  # type: ignore[func-returns-value]
    io_loop.call_later(0.5, theirs.send, b"x")
    assert await read == "event"
    assert io_loop.now == 0.5
    ours.close()
    theirs.close()
    io_loop.remove_timeout(timer)


@pytest.mark.gen_test
async def test_tcp_takes_no_time(io_loop: VirtualTimeLoop) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        for _ in range(50):
            ours = IOStream(socket.socket())
            await ours.connect(listener.getsockname())
            theirs = IOStream(listener.accept()[0])
            ours.write(b"hello\n")
            assert await theirs.read_until(b"\n") == b"hello\n"
            theirs.close()
            with pytest.raises(OSError):
                await ours.read_bytes(1)
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_a_silent_peer_is_waited_for_in_virtual_time(io_loop: VirtualTimeLoop, streams: Any) -> None:
    ours, theirs = streams
    io_loop.call_later(600, theirs.write, b"at last\n")
    assert await ours.read_until(b"\n") == b"at last\n"
    assert io_loop.now == 600


def test_nothing_left_to_wait_for_is_an_error(io_loop: VirtualTimeLoop, streams: Any) -> None:
    ours, _ = streams
    with pytest.raises(RuntimeError, match=r"nothing will ever happen.*\(1\)"):
        io_loop.run_sync(lambda: ours.read_bytes(1))
    io_loop.run_sync(lambda: gen.sleep(1))  # the loop is still good
    assert io_loop.now == 1


def test_the_horizon_is_not_passed(io_loop: VirtualTimeLoop) -> None:
    io_loop.horizon = 100

    def again() -> None:
        io_loop.call_later(30, again)

    again()
    with pytest.raises(RuntimeError, match="horizon"):
        io_loop.run_sync(asyncio.get_event_loop().create_future)
    assert io_loop.now == 90


@pytest.mark.gen_test
async def test_executor_work_stops_the_jumps(io_loop: VirtualTimeLoop) -> None:
    fired: list[Any] = []
    io_loop.call_later(20, fired.append, "too early")
    assert await io_loop.run_in_executor(None, lambda: time.sleep(0.05) or "done") == "done"  # type: ignore[func-returns-value]
    assert not fired
    assert 0.04 < io_loop.now < 10
    await gen.sleep(60)  # and now it jumps again
    assert fired


@pytest.mark.gen_test
async def test_executor_work_that_fails_lets_it_jump_again(io_loop: VirtualTimeLoop) -> None:
    with pytest.raises(ZeroDivisionError):
        await io_loop.run_in_executor(None, lambda: 1 / 0)
    start = time.monotonic()
    await gen.sleep(60)
    assert time.monotonic() - start < 1


@pytest.mark.gen_test
async def test_timers_run_at_their_pace_in_real_time(io_loop: VirtualTimeLoop) -> None:
    start = time.monotonic()
    with io_loop.real_time(), io_loop.real_time():
        await gen.sleep(0.05)
    assert time.monotonic() - start > 0.04
    await gen.sleep(60)
    assert time.monotonic() - start < 1


@pytest.mark.gen_test
async def test_real_time_lasts_to_the_outermost_end(io_loop: VirtualTimeLoop) -> None:
    with io_loop.real_time():
        with io_loop.real_time():
            pass
        start = time.monotonic()
        await gen.sleep(0.05)
        assert time.monotonic() - start > 0.04
        assert io_loop.now < 10


@pytest.mark.gen_test
async def test_in_real_time_the_clock_runs_while_callbacks_do(io_loop: VirtualTimeLoop) -> None:
    with io_loop.real_time():
        start = io_loop.now
        time.sleep(0.02)  # noqa: ASYNC251
        assert io_loop.now - start >= 0.02
    start = io_loop.now
    time.sleep(0.02)  # noqa: ASYNC251
    assert io_loop.now == start


@pytest.mark.gen_test
async def test_a_thread_in_real_time(io_loop: VirtualTimeLoop) -> None:
    answer = asyncio.get_running_loop().create_future()

    def work() -> None:
        time.sleep(0.02)
        io_loop.add_callback(answer.set_result, 42)

    thread = threading.Thread(target=work)
    with io_loop.real_time():
        thread.start()
        assert await answer == 42
    thread.join()


def test_leaving_real_time_in_a_thread_wakes_the_loop(io_loop: VirtualTimeLoop) -> None:
    entered = threading.Event()

    def work() -> None:
        with io_loop.real_time():
            entered.set()
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        io_loop.run_sync(asyncio.get_event_loop().create_future)
    thread.join()


@pytest.mark.gen_test
async def test_idle_is_before_the_next_jump(io_loop: VirtualTimeLoop, streams: Any) -> None:
    ours, theirs = streams
    seen: list[Any] = []
    io_loop.call_later(1, seen.append, "a second later")
    io_loop.add_callback(io_loop.add_callback, seen.append, "callback")
    theirs.read_until(b"\n").add_done_callback(lambda future: seen.append(future.result()))
    ours.write(b"bytes\n")
    await io_loop.idle()
    assert seen == ["callback", b"bytes\n"]
    assert io_loop.now == 0


@pytest.mark.gen_test
async def test_idle_may_be_given_up(io_loop: VirtualTimeLoop) -> None:
    io_loop.idle().cancel()
    await io_loop.idle()


@pytest.mark.gen_test
async def test_idle_waits_for_outside_work(io_loop: VirtualTimeLoop) -> None:
    done = []
    io_loop.run_in_executor(None, time.sleep, 0.02).add_done_callback(lambda _: done.append(True))
    await io_loop.idle()
    assert done


def test_a_million_seconds_of_timers_are_cheap(io_loop: VirtualTimeLoop) -> None:
    async def tick() -> None:
        for _ in range(10_000):
            await gen.sleep(100)

    io_loop.horizon = None
    io_loop.run_sync(tick)
    assert io_loop.now == 1_000_000


def test_it_is_current_until_it_is_closed() -> None:
    io_loop = VirtualTimeLoop()
    assert IOLoop.current() is io_loop
    other = VirtualTimeLoop(make_current=False)
    assert IOLoop.current() is io_loop
    other.close(all_fds=True)
    assert IOLoop.current() is io_loop
    io_loop.close(all_fds=True)
    with pytest.raises(RuntimeError):
        asyncio.get_event_loop()


def test_close_leaves_nothing_open() -> None:
    io_loop = VirtualTimeLoop()
    ours, theirs = socket.socketpair()
    stream = IOStream(ours)
    stream.read_bytes(1).add_done_callback(lambda future: future.exception())  # type: ignore[attr-defined]
    io_loop.run_sync(lambda: gen.sleep(1))
    io_loop.close(all_fds=True)
    assert ours.fileno() == -1
    theirs.close()
    del io_loop, stream
    gc.collect()  # a ResourceWarning is an error


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError):
        VirtualTimeLoop(speed=2)
    gc.collect()


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_real_time_gives_an_ordinary_loop(io_loop: VirtualTimeLoop) -> None:
    assert not isinstance(io_loop, VirtualTimeLoop)
    start = time.monotonic()
    await gen.sleep(0.02)
    assert time.monotonic() - start > 0.015


@pytest.mark.gen_test
async def test_the_clock_waits_for_a_name_look_up(
    io_loop: VirtualTimeLoop, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a thread, for which no time passes, however long it takes."""
    real = lookup._getaddrinfo

    def slow(*args: Any) -> Any:
        if not args[2]:  # by name
            time.sleep(0.05)
        return real(*args)

    monkeypatch.setattr(lookup, "_getaddrinfo", slow)
    for _ in range(5):
        async with Client("localhost", device.port, connect_timeout=0.01) as client:
            await client.wait_connected()
            await io_loop.idle()
    assert io_loop.now < 0.3  # of the other family's quarter of a second


@pytest.mark.gen_test
async def test_a_look_up_that_hangs_is_overtaken(io_loop: VirtualTimeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("katcp_tornado.testing.loop._LOOK_UP", 0.05)
    end = threading.Event()

    def hang(host: Any, port: int, flags: int) -> Any:
        if flags:  # is it a number?
            raise OSError("a name")
        end.wait(5)
        return []

    monkeypatch.setattr(lookup, "_getaddrinfo", hang)
    started = time.monotonic()
    client = Client("device", 7147, connect_timeout=100, auto_reconnect=False)
    with pytest.raises(ConnectTimeout):
        await client.wait_connected()
    assert io_loop.now == 100 and time.monotonic() - started < 2
    end.set()
    for thread in threading.enumerate():
        if thread.name == "look-up of device":
            thread.join()
