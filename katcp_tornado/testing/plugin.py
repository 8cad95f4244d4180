"""Fixtures for pytest: a device, a bad network before it, and a loop whose clock jumps.

They are not there unless the ``conftest.py`` at the root of your tests asks for them::

    pytest_plugins = ["katcp_tornado.testing.plugin"]

- ``io_loop``: a `VirtualTimeLoop`, whose horizon is a day; with ``@pytest.mark.real_time`` an ordinary IOLoop. Both
  are current. Tests run on it by ``io_loop.run_sync(...)``, or with ``@pytest.mark.gen_test`` of pytest-tornado, which
  need not be installed.
- ``katcp_device``: a `FakeDevice` that has been started on this loop.
- ``katcp_proxy``: a `FaultProxy` to this device, started too.
- ``loop_errors``: the errors that reached the loop's exception handler, or that asyncio or Tornado logged, a list of
  str; and the tasks that the test has left on the loop. If there are any left at its end, the test fails. One that
  expects them looks at them and clears the list. What our own logger ``katcp_tornado`` says is no failure: use
  ``caplog``.

All of them are closed at the end of the test. A test of yours may replace any of them: if there is a ``katcp_device``
of your own, with sensors, ``katcp_proxy`` stands before that one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tornado.concurrent import Future
from tornado.ioloop import IOLoop

from .device import FakeDevice
from .loop import VirtualTimeLoop
from .proxy import FaultProxy

_DAY = 86400.0
_WATCHED_LOGGERS = ("asyncio", "tornado.application", "tornado.general")
_call_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: the io_loop of this test is an ordinary one, its clock the real one")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    except BaseException:
        item.stash[_call_failed] = True
        raise


class _Collector(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.errors = errors
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))


@pytest.fixture
def loop_errors(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The errors that nobody else has seen. A test fails if there are any left at its end."""
    errors: list[str] = []
    collector = _Collector(errors)
    for name in _WATCHED_LOGGERS:
        logging.getLogger(name).addHandler(collector)
    yield errors
    for name in _WATCHED_LOGGERS:
        logging.getLogger(name).removeHandler(collector)
    if errors and not request.node.stash.get(_call_failed, False):
        pytest.fail("errors reached the loop:\n" + "\n".join(errors), pytrace=False)


@pytest.fixture
def io_loop(request: pytest.FixtureRequest, loop_errors: list[str]) -> Iterator[IOLoop]:
    """A `VirtualTimeLoop`; with ``@pytest.mark.real_time`` an ordinary IOLoop."""
    io_loop: IOLoop
    if request.node.get_closest_marker("real_time"):
        asyncio.set_event_loop(asyncio.new_event_loop())
        io_loop = IOLoop.current()
    else:
        io_loop = VirtualTimeLoop(horizon=_DAY)
        _lift_timeout(request.node)

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


def _lift_timeout(item: pytest.Item) -> None:
    # The five seconds of pytest-tornado would be virtual ones. The horizon of the loop takes their place.
    marker = item.get_closest_marker("gen_test")
    if marker is not None and "timeout" not in marker.kwargs:
        item.add_marker(pytest.mark.gen_test(**{**marker.kwargs, "timeout": None}), append=False)


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
def katcp_device(io_loop: IOLoop) -> Iterator[FakeDevice]:
    """A `FakeDevice`, started."""
    with FakeDevice() as device:
        yield device


@pytest.fixture
def katcp_proxy(katcp_device: FakeDevice) -> Iterator[FaultProxy]:
    """A `FaultProxy` to ``katcp_device``, started."""
    with FaultProxy(katcp_device.host, katcp_device.port) as proxy:
        yield proxy
