"""Fixtures of the tests with recorded conversations, and the table of the quirks."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recordings import quirk_table
from recordings.recording import NAMES, Recording
from recordings.replay import Replay, SensorReplay

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

EVERY_SECOND = Backoff(first=1, minimum=1, factor=1)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    quirk_table.note(report)


def pytest_sessionfinish() -> None:
    path = os.environ.get("KATCP_TORNADO_QUIRK_TABLE")
    if path:
        quirk_table.write(Path(path))


@pytest.fixture(autouse=True, scope="session")
def read() -> None:
    """Before `settled`: what is kept of the recordings need not be searched after every test."""
    for name in NAMES:
        Recording(name)


@pytest.fixture(autouse=True)
def no_trouble(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """What devices do is no reason for an error in the log, nor for a traceback."""
    caplog.set_level(logging.DEBUG, "katcp_tornado")
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR or r.exc_info] == []


class Peer(Client):
    """A client, and its device.

    ``lost`` is what links were lost of, and when; ``failed`` what attempts failed of. In the end ``malformed`` is how
    many lines came that are no messages.
    """

    def __init__(self, device: FakeDevice, **options: Any) -> None:
        options.setdefault("backoff", EVERY_SECOND)
        super().__init__(device.host, device.port, **options)
        self.device = device
        self.malformed = 0
        self.lost: list[Any] = []
        self.failed: list[Any] = []
        self.add_disconnected_callback(lambda: self.lost.append((self.io_loop.now, self.last_exc)))  # type: ignore[attr-defined]
        self.add_failed_connect_callback(self.failed.append)

    def informs(self, *names: Any) -> Any:
        """All informs of these names that are heard from now on."""
        heard: list[Any] = []
        for name in names:
            self.add_inform_callback(name, heard.append)
        return heard


@pytest.fixture
def peer(io_loop: VirtualTimeLoop, record_property: Callable[[str, object], None]) -> Iterator[Any]:
    """``peer(behaviour, **options)``: a client of a device that behaves so, and adds nothing to what that sends."""
    with contextlib.ExitStack() as stack:

        def peer(behaviour: Any, **options: Any) -> Any:
            record_property("source", behaviour.recording.name if isinstance(behaviour, Replay) else "script")
            device = stack.enter_context(FakeDevice("4"))
            device.behaviour = behaviour
            client = stack.enter_context(Peer(device, **options))
            stack.callback(lambda: _check(client))
            return client

        yield peer


def _check(client: Client) -> None:
    assert client.stats.malformed == client.malformed  # type: ignore[attr-defined]


@pytest.fixture
def replay(peer: Any) -> Any:
    """``await replay(name, section, label, **options)``: a client that is connected to a `SensorReplay`."""

    async def replay(name: Any, section: str = "", label: str = "c1", **options: Any) -> Any:
        client = peer(SensorReplay(name, section, label), **options)
        await client.wait_connected(20)
        return client

    return replay
