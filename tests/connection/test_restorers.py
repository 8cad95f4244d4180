"""Restorers hear of connections before the user's callbacks, in the order in which they were added."""

from __future__ import annotations

import pytest

from katcp_tornado import Client, State
from katcp_tornado.connection.restorers import Restorer
from katcp_tornado.testing import FakeDevice


class Recorder(Restorer):
    def __init__(self, name: str, log: list[object]) -> None:
        self.name = name
        self.log = log

    def connected(self) -> None:
        self.log.append(f"{self.name} connected")

    def disconnected(self) -> None:
        self.log.append(f"{self.name} disconnected")

    def closed(self) -> None:
        self.log.append(f"{self.name} closed")


@pytest.mark.gen_test
async def test_restorers_come_before_the_users_callbacks(device: FakeDevice) -> None:
    client = Client(device.host, device.port)
    log: list[object] = []
    client.add_connected_callback(lambda: log.append("connected"))
    client.add_disconnected_callback(lambda: log.append("disconnected"))
    client.add_state_callback(lambda old, new: log.append(new))
    for name in "ab":
        client._link.events.add_restorer(Recorder(name, log))
    await client.wait_connected()
    client.close()
    up = ["a connected", "b connected", State.CONNECTED, "connected"]
    down = ["a disconnected", "b disconnected", State.CLOSED, "disconnected"]
    assert log == [State.NEGOTIATING, *up, *down]


@pytest.mark.gen_test
async def test_a_client_that_is_closed_without_a_link(device: FakeDevice) -> None:
    client = Client(device.host, device.port)
    log: list[object] = []
    client._link.events.add_restorer(Recorder("a", log))
    client.close()
    assert log == ["a closed"]
