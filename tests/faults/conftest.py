"""Fixtures of the fault suite, and the scripts that run beside it.

Some faults take real time: a half-open link, a herd of clients. They happen in processes of their own, which are
started before the first test and looked at after the last, so that nobody waits for them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from faults import fault_table
from faults.fault_tools import LONGEST, Relay, Witness, descriptors, script
from tornado.ioloop import IOLoop

from katcp_tornado import Client, State
from katcp_tornado.testing import VirtualTimeLoop
from katcp_tornado.transport import lookup

_running: dict[tuple[str, ...], subprocess.Popen[str]] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at what runs beside the suite last."""
    items.sort(key=lambda item: item.get_closest_marker("beside") is not None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "beside(script, *args): looks at what a script found that ran beside the other tests"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    for item in session.items:
        marker = item.get_closest_marker("beside")
        if marker is not None and marker.args not in _running:
            _running[marker.args] = script(*marker.args)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    fault_table.note(report)


def pytest_sessionfinish() -> None:
    path = os.environ.get("KATCP_TORNADO_FAULT_TABLE")
    if path:
        fault_table.write(Path(path))
    for process in _running.values():
        process.kill()
        process.communicate()
    _running.clear()


_found: dict[tuple[str, ...], Any] = {}


@pytest.fixture
def findings(request: pytest.FixtureRequest) -> Any:
    """What the script of this test's ``beside`` has written. Waits for its end."""
    marker = request.node.get_closest_marker("beside")
    if marker.args not in _found:
        process = _running.pop(marker.args)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        _found[marker.args] = json.loads(out)
    found = _found[marker.args]
    if "skipped" in found:
        pytest.skip(found["skipped"])
    return found


@pytest.fixture(autouse=True)
def same_descriptors() -> Iterator[None]:
    """After each test the same descriptors are open as before it."""
    gc.collect()
    before = descriptors()
    yield
    deadline = time.monotonic() + 5
    while lookup.outstanding() and time.monotonic() < deadline:
        time.sleep(0.001)  # in the thread of a look-up that nobody waits for any more, a socket may be open
    gc.collect()
    left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
    assert left == {}


@pytest.fixture
def witnessed(io_loop: IOLoop) -> Iterator[Callable[..., Witness]]:
    """``witnessed(host, port, **options)`` makes a `.Client`, and returns its `Witness`.

    The default backoff has no randomness: its delays are 1, 2, 4, 8, 16, 30 ... s. In the end the clients are
    closed, and what they have told must fit together.
    """
    witnesses: list[Witness] = []

    def make(host: str, port: int, **options: Any) -> Witness:
        options.setdefault("backoff", LONGEST)
        witnesses.append(Witness(Client(host, port, **options)))
        return witnesses[-1]

    yield make
    for witness in witnesses:
        client = witness.client
        client.close()
        client.close()
        assert client.state is State.CLOSED
        before = client.io_loop.asyncio_loop.time()  # type: ignore[attr-defined]
        client.io_loop.run_sync(client.wait_closed)
        if isinstance(io_loop, VirtualTimeLoop):
            assert io_loop.now == before
        witness.check()


@pytest.fixture
def relay(io_loop: IOLoop, device: Any) -> Iterator[Callable[..., Relay]]:
    """``relay(**options)`` makes a `Relay` to the device."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Relay:
            made = Relay(device.host, device.port, **options)
            stack.callback(made.close)
            return made

        yield make
