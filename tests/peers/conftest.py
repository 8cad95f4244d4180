"""Real servers, what the fakes cannot vouch for: a test that has one of these fixtures runs against each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from peers.peer_servers import PEERS, Server
from tornado import gen

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import VirtualTimeLoop


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "needs(what): not for the real servers that lack it")


@pytest.fixture(scope="session", params=[peer for peer in PEERS if not peer.missing], ids=lambda peer: peer.name)
def peer(request: Any) -> Any:
    return request.param


@pytest.fixture
def capable(request: Any, peer: Any) -> None:
    """Only if the server can do what the test needs."""
    for marker in request.node.iter_markers("needs"):
        for what in marker.args:
            if peer.lack(what):
                pytest.skip(f"{peer.name}: {peer.lack(what)}")


@pytest.fixture(scope="session")
def shared(peer: Any) -> Iterator[Any]:
    """The server of all the tests that leave it as it is."""
    server = Server(peer)
    yield server
    server.end()


@pytest.fixture
def start(capable: Any, peer: Any) -> Iterator[Any]:
    """``start(*arguments)`` runs a server of the test's own."""
    servers = []

    def start(*arguments: Any) -> Any:
        servers.append(Server(peer, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def own(start: Any) -> Any:
    """A server of its own, for a test that ends it or changes its sensors."""
    return start()


@pytest.fixture
def make(io_loop: VirtualTimeLoop, capable: Any) -> Iterator[Any]:
    """``await make(server, **options)`` is a connected client."""
    clients = []

    async def make(server: Any, **options: Any) -> Any:
        options.setdefault("backoff", Backoff(first=0.05, maximum=0.2, minimum=0.02))
        clients.append(await Client.connect("127.0.0.1", server.port, timeout=10, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        io_loop.run_sync(client.wait_closed)


@pytest.fixture
def client(io_loop: VirtualTimeLoop, shared: Any, make: Any) -> Any:
    return io_loop.run_sync(lambda: make(shared))


@pytest.fixture
def until() -> Any:
    """``await until(condition)``, for what is not announced."""

    async def until(condition: Any, timeout: int = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it has not come to pass"
            await gen.sleep(0.01)

    return until
