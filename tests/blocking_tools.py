"""What the tests of the blocking calls share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import linecache
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable

from tornado.ioloop import IOLoop

from katcp_tornado.testing import FakeDevice, RequestContext, Stall

TIMEOUT = 20.0


class Asked(Stall):
    """Never answers, and tells another thread that it was asked."""

    def __init__(self) -> None:
        self.it_was = threading.Event()

    def receive(self, context: RequestContext) -> None:
        self.it_was.set()


class Served:
    """A FakeDevice on a loop in a thread of its own."""

    def __init__(self) -> None:
        ready: concurrent.futures.Future[tuple[IOLoop, asyncio.Event, FakeDevice]] = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), name="device")
        self._thread.start()
        self._io_loop, self._end, self.device = ready.result(TIMEOUT)
        self.port = self.device.port

    async def _main(self, ready: concurrent.futures.Future[tuple[IOLoop, asyncio.Event, FakeDevice]]) -> None:
        end = asyncio.Event()
        with FakeDevice() as device:
            device.add_sensor("voltage", "float", 1.5)
            ready.set_result((IOLoop.current(), end, device))
            await end.wait()

    def do(self, function: Callable[[FakeDevice], Any]) -> Any:
        """Call a function of the device on its loop."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._io_loop.add_callback(lambda: done.set_result(function(self.device)))
        return done.result(TIMEOUT)

    def stall(self, name: str) -> Asked:
        """Let the device answer no request of this name."""
        asked = Asked()
        self.do(lambda device: device.on_request(name, asked))
        return asked

    def end(self) -> None:
        self._io_loop.add_callback(self._end.set)
        self._thread.join(TIMEOUT)


def left_behind() -> tuple[set[str], int]:
    """The names of all threads, and how many descriptors are open."""
    return (
        {thread.name for thread in threading.enumerate()},
        len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    )


class Interruption:
    """Runs a function, and at its line number *n* a handler, as a signal handler would run.

    Lines count in the files whose names end with one of *files*, and, with *waits*, while a thread is waited for;
    ``reached`` says whether there was a line *n*.
    """

    def __init__(self, files: tuple[str, ...], n: int, handler: Callable[[], Any], *, waits: bool = False) -> None:
        self.files = files
        self.waits = waits
        self.left = n
        self.handler = handler
        self.where = ""

    @property
    def reached(self) -> bool:
        return self.left < 0

    def run(self, function: Callable[[], Any]) -> Any:
        sys.settrace(self._trace)
        try:
            return function()
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        waits = self.waits and file == threading.__file__
        if not (waits or file.endswith(self.files)):
            return None
        if event == "line" and (not waits or "waiter.acquire" in linecache.getline(file, frame.f_lineno)):
            self.left -= 1
            if self.left == -1:
                self.where = f"{file}:{frame.f_lineno}"
                self.handler()
        return self._trace


@contextlib.contextmanager
def serving() -> Iterator[Served]:
    """A device in a thread of its own; afterwards nothing may be left behind."""
    before = left_behind()
    served = Served()
    try:
        yield served
    finally:
        served.end()
    gc.collect()
    assert left_behind() == before, "a thread, a socket or a loop is left"


def in_child(function: Callable[[], Any]) -> Any:
    """What a function returns in a forked child, which then ends without a word; it must be picklable."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork of a process with threads
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(TIMEOUT))  # a child that hangs
            try:
                found = function()
            except BaseException as exc:
                found = exc
            os.write(writes, pickle.dumps(found))
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the child hangs"
    found = pickle.loads(data)
    if isinstance(found, BaseException):
        raise found
    return found


def in_thread(function: Callable[[], Any]) -> Any:
    """What a function returns, or raises, in a thread of its own, which must end in time."""
    found: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            found.set_result(function())
        except BaseException as exc:
            found.set_exception(exc)

    threading.Thread(target=run, name="in_thread", daemon=True).start()
    return found.result(TIMEOUT)
