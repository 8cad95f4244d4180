"""What every test gets: the fixtures of ``katcp_tornado.testing.plugin``, and no error that goes unseen.

Stricter than the plugin itself:

- Every test has ``loop_errors``, also one without a loop, and what Python says of an object when it is collected
  ("was never retrieved") is said in the test that has left it behind.
- Asynchronous tests that pytest-tornado would pass without running them to their end are rejected.

``device`` is ``katcp_device``. The deadline of a ``gen_test`` with ``real_time`` is 30 s, unless it says
``gen_test(timeout=...)``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice

pytest_plugins = ["katcp_tornado.testing.plugin"]

REAL_TIMEOUT = 30.0

#: Marked ``slow``: what takes long, and differs little from one Python, tornado or codec to the next.
SLOW = (
    "by_name/test_ipython.py",
    "cli/",
    "peers/",
    "sensors/test_random.py",
    "sensors/test_steps_broken.py",
    "test_docs.py",
    "test_fuzz.py",
    "test_herd.py",
    "test_interleavings.py",
    "test_leaks.py",
    "test_life.py",
    "test_security.py",
    "testing/test_conftest.py",
    "testing/test_howto.py",
    "testing/test_plugin.py",
    "web/test_browser.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run what uses the real clock, and only that, on uvloop")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--uvloop"):
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of policies, since Python 3.14
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--uvloop"):
        items[:] = [item for item in items if item.get_closest_marker("real_time")]
    traps = [f"{item.nodeid}: {trap}" for item in items for trap in [_trap(item)] if trap]
    if traps:
        raise pytest.UsageError("\n".join(traps))
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        marker = item.get_closest_marker("gen_test")
        if marker is not None and "timeout" not in marker.kwargs and item.get_closest_marker("real_time"):
            item.add_marker(pytest.mark.gen_test(**{**marker.kwargs, "timeout": REAL_TIMEOUT}), append=False)


def _trap(item: pytest.Item) -> str:
    """What is wrong with a test that pytest-tornado would pass without running it to its end."""
    function = getattr(item, "obj", None)
    if item.get_closest_marker("gen_test") is None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "an asynchronous test needs @pytest.mark.gen_test"
    elif gen.is_coroutine_function(function):
        return "gen_test on a gen.coroutine would not run it; drop @gen.coroutine"
    elif inspect.isasyncgenfunction(function):
        return "gen_test on an async generator would not run it; use await, not yield"
    return ""


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """In the background of a shell SIGINT is ignored, and what is started here would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def settled() -> None:
    """What pytest and the modules before this one keep need not be searched after every test either."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def collected(request: pytest.FixtureRequest, loop_errors: list[str]) -> Iterator[None]:
    yield
    if "io_loop" in request.fixturenames:
        gc.collect()  # now "was never retrieved" and "was destroyed but it is pending" are said, not in the next test


@pytest.fixture
def device(katcp_device: FakeDevice) -> FakeDevice:
    return katcp_device


class Upper(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def connect(io_loop: IOLoop, device: FakeDevice) -> Iterator[Callable[..., Client]]:
    """``connect(**options)`` makes a client of the device; all of them are closed in the end.

    Its delays are the longest that may be drawn: 1, 2, 4 ... seconds, also between those of what the device refuses.
    """
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(device.host, device.port, **{"backoff": Backoff(random=Upper()), **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()
