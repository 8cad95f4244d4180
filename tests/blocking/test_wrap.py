"""wrap: a Client on the application's own loop, used from other threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

import pytest
from blocking_tools import TIMEOUT, Asked
from tornado.ioloop import IOLoop

from katcp_tornado import Client, ClientClosed, RequestTimeout, WaitTimeout
from katcp_tornado.blocking import wrap
from katcp_tornado.testing import FakeDevice, Stall

pytestmark = pytest.mark.real_time  # real threads wait


async def elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in another thread, while the loop runs on."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return await IOLoop.current().run_in_executor(pool, function, *args)
        finally:
            pool.shutdown(wait=False)


@pytest.mark.gen_test
async def test_the_same_calls_from_another_thread(device: FakeDevice) -> None:
    async with Client("127.0.0.1", device.port) as client:
        face = wrap(client)

        def use() -> list[bytes]:
            face.wait_connected(TIMEOUT)
            subscription = face.subscribe("nothing", type=int)
            subscription.cancel()
            with pytest.raises(WaitTimeout):
                face.wait_inform("tick", timeout=0.01)
            with pytest.raises(RequestTimeout):
                face.request("stall", timeout=0.01)
            return face.request("echo", "a").arguments

        device.on_request("stall", Stall())
        assert await elsewhere(use) == [b"a"]
        assert face.client is client and face.is_connected


@pytest.mark.gen_test
async def test_a_wait_on_the_loops_own_thread_is_an_error(device: FakeDevice) -> None:
    async with Client("127.0.0.1", device.port) as client:
        face = wrap(client)
        for wait in (lambda: face.request("help"), face.wait_connected, face.submit(int).result):
            with pytest.raises(RuntimeError, match="own thread"):
                wait()


def test_a_wait_where_the_loop_does_not_run_is_an_error(io_loop: IOLoop) -> None:
    """In IPython, say: the loop is this thread's, and nobody runs it."""
    with Client("127.0.0.1", 1) as client, pytest.raises(RuntimeError, match="does not run"):
        wrap(client).request("help")


@pytest.mark.gen_test
async def test_closing_it_leaves_the_client_alone(device: FakeDevice) -> None:
    asked = Asked()
    device.on_request("stall", asked)
    async with Client.connect("127.0.0.1", device.port) as client:
        face = wrap(client)

        def use() -> None:
            with pytest.raises(ClientClosed, match="blocking face"):
                face.request("stall")

        def close() -> None:
            assert asked.it_was.wait(TIMEOUT)
            face.close()
            face.close()

        closer = threading.Thread(target=close)
        closer.start()
        await elsewhere(use)
        closer.join(TIMEOUT)
        with pytest.raises(ClientClosed):
            face.submit(int).result()
        assert client.is_connected and (await client.request("echo", "a")).arguments == [b"a"]


def test_the_loop_is_closed_meanwhile() -> None:
    """Nobody would ever answer: the call ends."""
    started: Future[tuple[IOLoop, Client]] = Future()

    def application() -> None:
        io_loop = IOLoop(make_current=True)
        io_loop.add_callback(lambda: started.set_result((io_loop, Client("127.0.0.1", 1))))
        io_loop.start()
        io_loop.close()

    thread = threading.Thread(target=application)
    thread.start()
    io_loop, client = started.result(TIMEOUT)
    face = wrap(client)

    def leave() -> asyncio.Future[None]:
        client.close()
        io_loop.add_future(client.wait_closed(), lambda _: io_loop.stop())
        return asyncio.Future()

    with pytest.raises(ClientClosed):
        face.call(leave)
    thread.join(TIMEOUT)


def test_what_can_be_wrapped() -> None:
    with pytest.raises(TypeError, match="str"):
        wrap("127.0.0.1:7147")  # type: ignore[call-overload]
