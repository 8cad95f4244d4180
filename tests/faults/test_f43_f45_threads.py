"""F43 and F45: threads that call while another closes or ends the loop's thread, and forks; real time and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from blocking_tools import TIMEOUT, Served, in_child, serving

from katcp_tornado import ClientClosed, Message, State
from katcp_tornado.blocking import BlockingClient


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[BlockingClient]:
    with connected(served) as client:
        yield client


def connected(served: Served) -> BlockingClient:
    return BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)


# F43


def test_f43_sixteen_threads_call_while_one_closes(served: Served) -> None:
    client = connected(served)
    under_way = threading.Semaphore(0)

    def work() -> type[BaseException]:
        while True:
            try:
                client.request("echo")
            except Exception as exc:
                assert isinstance(exc, ClientClosed)
                return type(exc)
            under_way.release()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        ends = [pool.submit(work) for _ in range(16)]
        for _ in range(100):
            assert under_way.acquire(timeout=TIMEOUT)
        client.close()
        for end in ends:
            end.result(TIMEOUT)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals")
def test_f43_close_in_a_signal_handler_while_a_call_waits(served: Served) -> None:
    client = connected(served)
    asked = served.stall("echo")
    main = threading.get_ident()
    alive: list[bool] = []

    def handler(signum: int, frame: Any) -> None:
        client.close()
        alive.append(client._runner._thread.is_alive())  # type: ignore[attr-defined]

    def interrupt() -> None:
        asked.it_was.wait(TIMEOUT)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt)
            with pytest.raises(ClientClosed) as caught:
                client.request("echo")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.sent is True and len(alive) == 1
    assert not client._runner._thread.is_alive()  # type: ignore[attr-defined]


async def for_ever() -> None:
    await asyncio.Event().wait()


def settled_by_the_end_of_the_thread(client: BlockingClient, served: Served, end: Callable[[], Any]) -> None:
    asked = served.stall("echo")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting: list[concurrent.futures.Future[Any]] = [
            pool.submit(client.request, "echo"),
            pool.submit(client.wait_inform, "never"),
            client.submit(for_ever),
        ]
        assert asked.it_was.wait(TIMEOUT)
        end()
        for call in waiting:
            with pytest.raises(ClientClosed):
                call.result(TIMEOUT)
    assert client.state is State.CLOSED
    for late in (lambda: client.request("help"), client.wait_connected, lambda: client.call(int)):
        with pytest.raises(ClientClosed):
            late()


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_f43_a_callback_that_ends_the_thread(
    client: BlockingClient, served: Served, exception: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def on_tick(message: Message) -> None:
        raise exception

    client.add_inform_callback("tick", on_tick)
    settled_by_the_end_of_the_thread(client, served, lambda: served.do(lambda device: device.inform_all("tick")))
    assert f"was ended by {exception.__name__}" in caplog.text


@pytest.mark.parametrize("how", ["function", "coroutine", "stop", "again in a callback"])
def test_f43_a_call_that_ends_the_thread(client: BlockingClient, served: Served, how: str) -> None:
    async def leave() -> None:
        sys.exit()

    def end() -> None:
        if how == "stop":
            client.call(client.client.io_loop.stop)
            return
        if how == "again in a callback":
            client.add_disconnected_callback(sys.exit)
        with pytest.raises(ClientClosed, match="SystemExit"):
            client.call(leave if how == "coroutine" else sys.exit)

    settled_by_the_end_of_the_thread(client, served, end)


# F45


CALLS: dict[str, Callable[[BlockingClient], Any]] = {
    "request": lambda client: client.request("echo"),
    "call": lambda client: client.call(int),
    "submit": lambda client: client.submit(int),
    "wait_connected": lambda client: client.wait_connected(timeout=5),
    "wait_disconnected": lambda client: client.wait_disconnected(timeout=5),
    "wait_inform": lambda client: client.wait_inform("tick"),
    "expect_inform": lambda client: client.expect_inform("tick").__enter__(),
    "subscribe": lambda client: client.subscribe("voltage"),
    "mirror": lambda client: client.mirror(),
    "sensor_value": lambda client: client.sensor_value("voltage"),
    "retry_now": lambda client: client.retry_now(),
    "add_connected_callback": lambda client: client.add_connected_callback(print),
    "remove_connected_callback": lambda client: client.remove_connected_callback(print),
}


def told(client: BlockingClient) -> list[str]:
    """The calls that do not raise what they should."""
    odd = []
    for name, call in CALLS.items():
        try:
            call(client)
        except RuntimeError as exc:
            if "make clients after the fork" in str(exc):
                continue
        odd.append(name)
    return odd


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
@pytest.mark.parametrize("end", ["nothing", "close", "with", "collect"])
def test_f45_the_child_is_told_and_the_parent_hears_all(client: BlockingClient, served: Served, end: str) -> None:
    heard: concurrent.futures.Future[Message] = concurrent.futures.Future()
    client.add_inform_callback("tick", heard.set_result)
    asked = served.stall("echo")
    clients = [client]

    def child() -> list[str]:
        odd = told(clients[0])
        if end == "close":
            clients[0].close()
        elif end == "with":
            with clients[0]:
                pass
        elif end == "collect":
            clients.clear()
        return odd

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.request, "echo", "a", timeout=0.5 if end == "nothing" else None)
        assert asked.it_was.wait(TIMEOUT)
        assert in_child(child) == []
        served.do(lambda device: device.inform_all("tick", 1))
        assert heard.result(TIMEOUT).arguments == [b"1"]
        assert client.request("help").arguments and client.stats.connects == 1
        client.close()
        with pytest.raises(Exception, match="echo|closed"):
            waiting.result(TIMEOUT)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
def test_f45_a_child_may_have_clients_of_its_own(client: BlockingClient, served: Served) -> None:
    def child() -> list[bytes]:
        with connected(served) as own:
            return own.request("echo", "child").arguments

    assert in_child(child) == [b"child"]
    assert client.request("echo", "parent").arguments == [b"parent"]
