"""Forked processes: what a child does with an inherited client never disturbs its parent's link."""

from __future__ import annotations

import gc
import os
import warnings
from functools import partial
from typing import Callable

import pytest
from blocking_tools import in_child, serving
from tls_tools import client_context, server_context
from tornado.ioloop import IOLoop

from katcp_tornado import Client, State
from katcp_tornado.testing import FakeDevice, Silent

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"), pytest.mark.real_time]


def nothing(clients: list[Client]) -> None:
    """The child ends at once."""


def close(clients: list[Client]) -> None:
    for client in clients:
        client.close()
        assert client.state is State.CLOSED


def collect(clients: list[Client]) -> None:
    clients.clear()
    gc.collect()


def close_the_loop(clients: list[Client]) -> None:
    clients[0].close()
    clients[0].io_loop.close(all_fds=True)


async def still_hears(client: Client, device: FakeDevice) -> None:
    """Bytes go both ways on the old connection."""
    tick = client.wait_inform("tick", timeout=20)
    device.inform_all("tick")
    await tick
    assert (await client.request("echo", "a", timeout=20)).arguments == [b"a"]
    assert client.stats.generation == 1 and client.stats.connects == 1


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("act", [nothing, close, collect, close_the_loop])
def test_the_child_does_not_disturb_the_parent(io_loop: IOLoop, act: Callable[[list[Client]], None], tls: bool) -> None:
    if act is close_the_loop and type(io_loop.asyncio_loop).__module__.startswith("uvloop"):  # type: ignore[attr-defined]
        pytest.skip("a child must not close a loop of uvloop that it has inherited")
    server = client_side = None
    if tls:
        server, client_side = server_context(), client_context()
    with FakeDevice(ssl_options=server) as device:
        device.on_request("watchdog", Silent())
        clients = [Client("127.0.0.1", device.port, ssl_options=client_side)]
        io_loop.run_sync(clients[0].wait_connected, 20)
        pending = clients[0].request("watchdog", timeout=None)
        in_child(lambda: act(clients))
        io_loop.run_sync(partial(still_hears, clients[0], device), 20)
        assert not pending.done()
        clients[0].close()
        io_loop.run_sync(clients[0].wait_closed, 20)


def test_a_fork_in_the_middle_of_an_attempt(io_loop: IOLoop) -> None:
    with FakeDevice() as device, Client("127.0.0.1", device.port) as client:
        io_loop.add_callback(lambda: in_child(client.close))  # its socket is on its way
        io_loop.run_sync(client.wait_connected, 20)
        io_loop.run_sync(partial(still_hears, client, device), 20)


def test_a_child_that_runs_the_loop(io_loop: IOLoop) -> None:
    """As a daemon does: it gets a connection of its own."""
    with serving() as served, Client("127.0.0.1", served.port) as client:

        def run() -> None:
            io_loop.run_sync(client.wait_disconnected, 20)
            assert isinstance(client.last_exc, ConnectionAbortedError) and "parent" in str(client.last_exc)
            client.retry_now()
            io_loop.run_sync(client.wait_connected, 20)
            client.close()

        io_loop.run_sync(client.wait_connected, 20)
        in_child(run)
        reply = io_loop.run_sync(lambda: client.request("echo", "a", timeout=20), 20)
        assert reply.arguments == [b"a"] and client.stats.connects == 1
        client.close()
        io_loop.run_sync(client.wait_closed, 20)


@pytest.mark.parametrize("connected", [True, False])
def test_the_child_holds_no_connection_open(io_loop: IOLoop, connected: bool) -> None:
    """The device sees the end of the connection though the child lives on."""
    with FakeDevice() as device, Client("127.0.0.1", device.port) as client:
        wait, release = os.pipe()
        children: list[int] = []

        def fork() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                children.append(os.fork())
            if children[0] == 0:
                os.close(release)
                os.read(wait, 1)
                os._exit(0)

        if not connected:
            io_loop.add_callback(fork)
        io_loop.run_sync(client.wait_connected, 20)
        if connected:
            fork()
        client.close()
        try:
            io_loop.run_sync(lambda: device.wait(lambda device: not device.connections), 20)
        finally:
            os.close(release)
            os.close(wait)
            os.waitpid(children[0], 0)
