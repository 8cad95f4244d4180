"""What every test gets: a loop whose clock jumps, and no error that goes unseen.

- ``io_loop``: a `VirtualTimeLoop`; with ``@pytest.mark.real_time`` an ordinary IOLoop. Tests of
  ``@pytest.mark.gen_test`` run on it. Their deadline, unless they say ``gen_test(timeout=...)`` (seconds of the
  loop's clock), is a day of virtual time, or 30 s of real time.
- ``device``: a `FakeDevice` that has been started on it.
- ``loop_errors``: the errors that reached the loop's exception handler, or that asyncio or Tornado logged. A
  test fails if there are any left at its end; one that expects them looks at them and clears the list. Errors that
  our own logger ``katcp_tornado`` reports are no failure: use ``caplog``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tornado import gen
from tornado.concurrent import Future
from tornado.ioloop import IOLoop

from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

DAY = 86400.0
REAL_TIMEOUT = 30.0
WATCHED_LOGGERS = ("asyncio", "tornado.application", "tornado.general")

call_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: the io_loop of this test is an ordinary one, its clock the real one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    traps = [f"{item.nodeid}: {trap}" for item in items for trap in [_trap(item)] if trap]
    if traps:
        raise pytest.UsageError("\n".join(traps))
    for item in items:
        marker = item.get_closest_marker("gen_test")
        if marker is not None and "timeout" not in marker.kwargs:
            # pytest-tornado's own 5 s would be virtual seconds. The horizon of the loop takes their place.
            timeout = REAL_TIMEOUT if item.get_closest_marker("real_time") else None
            item.add_marker(pytest.mark.gen_test(**{**marker.kwargs, "timeout": timeout}), append=False)


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


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what the imports have made need not be searched again after every test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    except BaseException:
        item.stash[call_failed] = True
        raise


class _Collector(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.errors = errors
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))


@pytest.fixture(autouse=True)
def loop_errors(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    errors: list[str] = []
    collector = _Collector(errors)
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).addHandler(collector)
    yield errors
    gc.collect()  # now "was never retrieved" and "was destroyed but it is pending" are said, not in the next test
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).removeHandler(collector)
    if errors and not request.node.stash.get(call_failed, False):
        pytest.fail("errors reached the loop:\n" + "\n".join(errors), pytrace=False)


@pytest.fixture
def io_loop(request: pytest.FixtureRequest, loop_errors: list[str]) -> Iterator[IOLoop]:
    io_loop: IOLoop
    if request.node.get_closest_marker("real_time"):
        asyncio.set_event_loop(asyncio.new_event_loop())
        io_loop = IOLoop.current()
    else:
        io_loop = VirtualTimeLoop(horizon=DAY)

    def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        loop_errors.append(f"{context['message']}: {exc!r}" if exc is not None else str(context["message"]))

    loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
    loop.set_exception_handler(on_error)
    yield io_loop
    _turn(io_loop)
    left = asyncio.all_tasks(loop)
    for task in left:
        loop_errors.append(f"a task was left on the loop: {task!r}")
        task.cancel()
    if left:
        _turn(io_loop)
    del left
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)


def _turn(io_loop: IOLoop) -> None:
    """Let what is due now run to its end: a close takes a turn or two of the loop."""
    if isinstance(io_loop, VirtualTimeLoop):
        pause = io_loop.idle()
    else:
        pause = Future()
        io_loop.call_later(0.005, pause.set_result, None)
    io_loop.add_future(pause, lambda _: io_loop.stop())
    while not pause.done():  # what a test has left behind may stop the loop early
        io_loop.start()


@pytest.fixture
def device(io_loop: IOLoop) -> Iterator[FakeDevice]:
    with FakeDevice() as device:
        yield device
