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
import inspect
import logging
import warnings
from collections.abc import Generator, Iterator
from typing import Any, Optional

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
    _check_loop(request.node)
    before = _current_loop()
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
    if any(_is_busy(task) for task in asyncio.all_tasks(loop)):
        _let_run(loop)
    _end([task for task in asyncio.all_tasks(loop) if _is_busy(task)], loop_errors)
    _turn(io_loop)
    left = list(asyncio.all_tasks(loop))
    _end(left, loop_errors)
    if left:
        _turn(io_loop)
    del left
    io_loop.close(all_fds=True)
    asyncio.set_event_loop(before)


def _check_loop(item: pytest.Item) -> None:
    """A test that another plugin runs on a loop of its own would wait for a device whose loop never runs."""
    if inspect.iscoroutinefunction(getattr(item, "obj", None)) and item.get_closest_marker("gen_test") is None:
        pytest.fail(
            "io_loop, katcp_device and katcp_proxy are on a loop that this test does not run on (is it a test of "
            "pytest-asyncio?): mark it gen_test (of pytest-tornado), call io_loop.run_sync() in a plain function, or "
            "make the device inside the test: `with FakeDevice() as device:`",
            pytrace=False,
        )


def _current_loop() -> Optional[asyncio.AbstractEventLoop]:
    """The loop that is set in this thread. Asked in any other way, asyncio would make one, or warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of policies, since Python 3.14
        local = getattr(asyncio.get_event_loop_policy(), "_local", None)
    return getattr(local, "_loop", None)


def _is_busy(task: asyncio.Task[Any]) -> bool:
    """True if a task waits for nothing but its turn."""
    return getattr(task, "_fut_waiter", task) is None


def _let_run(loop: asyncio.AbstractEventLoop) -> None:
    """A hundred turns, for the tasks that have something to do."""
    for _ in range(100):
        loop.call_soon(loop.stop)
        loop.run_forever()


def _end(tasks: list[asyncio.Task[Any]], loop_errors: list[str]) -> None:
    for task in tasks:
        loop_errors.append(f"a task was left on the loop: {task!r}")
        task.cancel()


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
