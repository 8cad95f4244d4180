"""Real servers, what the fakes cannot vouch for: a test that has one of these fixtures runs against each of them."""

import time

import pytest
from peer_servers import PEERS, Server
from tornado import gen

from katcp_tornado import Backoff, Client


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(what): not for the real servers that lack it")


@pytest.fixture(scope="session", params=[peer for peer in PEERS if not peer.missing], ids=lambda peer: peer.name)
def peer(request):
    return request.param


@pytest.fixture
def capable(request, peer):
    """Only if the server can do what the test needs."""
    for marker in request.node.iter_markers("needs"):
        for what in marker.args:
            if peer.lack(what):
                pytest.skip(f"{peer.name}: {peer.lack(what)}")


@pytest.fixture(scope="session")
def shared(peer):
    """The server of all the tests that leave it as it is."""
    server = Server(peer)
    yield server
    server.end()


@pytest.fixture
def start(capable, peer):
    """``start(*arguments)`` runs a server of the test's own."""
    servers = []

    def start(*arguments):
        servers.append(Server(peer, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def own(start):
    """A server of its own, for a test that ends it or changes its sensors."""
    return start()


@pytest.fixture
def make(io_loop, capable):
    """``await make(server, **options)`` is a connected client."""
    clients = []

    async def make(server, **options):
        options.setdefault("backoff", Backoff(first=0.05, maximum=0.2, minimum=0.02))
        clients.append(await Client.connect("127.0.0.1", server.port, timeout=10, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        io_loop.run_sync(client.wait_closed)


@pytest.fixture
def client(io_loop, shared, make):
    return io_loop.run_sync(lambda: make(shared))


@pytest.fixture
def until():
    """``await until(condition)``, for what is not announced."""

    async def until(condition, timeout=10):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it has not come to pass"
            await gen.sleep(0.01)

    return until
