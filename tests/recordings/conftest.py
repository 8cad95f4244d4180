"""Fixtures of the tests with recorded conversations, and the table of the quirks."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import pytest
import quirk_table
from recording import NAMES, Recording
from replay import Replay, SensorReplay

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice

EVERY_SECOND = Backoff(first=1, minimum=1, factor=1)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    quirk_table.note(report)


def pytest_sessionfinish() -> None:
    path = os.environ.get("KATCP_TORNADO_QUIRK_TABLE")
    if path:
        quirk_table.write(Path(path))


@pytest.fixture(autouse=True, scope="session")
def read():
    """Before `settled`: what is kept of the recordings need not be searched after every test."""
    for name in NAMES:
        Recording(name)


@pytest.fixture(autouse=True)
def no_trouble(caplog):
    """What devices do is no reason for an error in the log, nor for a traceback."""
    caplog.set_level(logging.DEBUG, "katcp_tornado")
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR or r.exc_info] == []


class Peer(Client):
    """A client, and its device.

    ``lost`` is what links were lost of, and when; ``failed`` what attempts failed of. In the end ``malformed`` is how
    many lines came that are no messages.
    """

    def __init__(self, device, **options):
        options.setdefault("backoff", EVERY_SECOND)
        super().__init__(device.host, device.port, **options)
        self.device = device
        self.malformed = 0
        self.lost = []
        self.failed = []
        self.add_disconnected_callback(lambda: self.lost.append((self.io_loop.now, self.last_exc)))
        self.add_failed_connect_callback(self.failed.append)

    def informs(self, *names):
        """All informs of these names that are heard from now on."""
        heard = []
        for name in names:
            self.add_inform_callback(name, heard.append)
        return heard


@pytest.fixture
def peer(io_loop, record_property):
    """``peer(behaviour, **options)``: a client of a device that behaves so, and adds nothing to what that sends."""
    with contextlib.ExitStack() as stack:

        def peer(behaviour, **options):
            record_property("source", behaviour.recording.name if isinstance(behaviour, Replay) else "script")
            device = stack.enter_context(FakeDevice("4"))
            device.behaviour = behaviour
            client = stack.enter_context(Peer(device, **options))
            stack.callback(lambda: _check(client))
            return client

        yield peer


def _check(client):
    assert client.stats.malformed == client.malformed


@pytest.fixture
def replay(peer):
    """``await replay(name, section, label, **options)``: a client that is connected to a `SensorReplay`."""

    async def replay(name, section="", label="c1", **options):
        client = peer(SensorReplay(name, section, label), **options)
        await client.wait_connected(20)
        return client

    return replay
