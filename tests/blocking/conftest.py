"""A FakeDevice in a thread of its own; real time, since real threads wait. Nothing may be left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blocking_tools import TIMEOUT, Served, serving

from katcp_tornado.blocking import BlockingClient


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[BlockingClient]:
    with BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT) as client:
        yield client
