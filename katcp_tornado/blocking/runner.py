"""Runners: they run functions on an event loop for threads that wait for the results."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import weakref
from typing import Any, Callable, Optional, TypeVar

from .. import ClientClosed
from .calls import Call, SubmittedFuture

T = TypeVar("T")

#: Seconds until a Future is tried again of which another thread holds the condition.
MOMENT = 0.001


class Runner:
    """Runs functions on an event loop for threads that wait for the results.

    There are no locks here. The table of the calls is a dict, of which each operation is atomic: a call is entered
    first, and then its thread looks whether the end has come; the end is noted first, and then the table is looked
    through. So each call is settled by one or the other.
    """

    def __init__(self, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        self.loop = loop
        #: No function is run any more, but those that undo something.
        self.ending = False
        #: Nothing is run any more.
        self.ended = False
        #: This is a forked child of the process that the runner is of.
        self.is_forked = False
        self._calls: dict[Call[Any], None] = {}
        _runners.add(self)

    # Calls

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function on the loop, and return its result; if that is awaitable, what comes of it."""
        __tracebackhide__ = True
        return self._call(Call(self, functools.partial(function, *args, **kwargs)))

    def at_any_time(self, function: Callable[..., Any], *args: Any) -> Any:
        """As `call`, also on the loop's thread, at the end and after it; for what waits for nothing."""
        __tracebackhide__ = True
        if self.is_loop_thread():
            return function(*args)
        try:
            return self._call(Call(self, functools.partial(function, *args), late=True))
        except ClientClosed:  # it was not run: there is no loop any more
            return function(*args)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> SubmittedFuture:
        """Run a function on the loop; a Future of what comes of it."""
        self._check_process()
        call: Call[Any] = Call(self, functools.partial(function, *args, **kwargs))
        call.future = SubmittedFuture(call)
        self._enter(call)
        return call.future

    def _call(self, call: Call[T]) -> T:
        __tracebackhide__ = True
        self.check_wait()
        try:
            self._enter(call)
            self.wait(call, call.settled)
        except BaseException:  # Ctrl-C
            call.abandon()
            raise
        try:
            self.join_if_ending()
            return call.outcome()
        finally:
            del call, self  # the traceback holds this frame

    def _enter(self, call: Call[Any]) -> None:
        self._calls[call] = None
        if (self.ended and not call.late) or not self.post(call.run):
            call.settle(None, self.closed(sent=False))

    def remove(self, call: Call[Any]) -> None:
        """The call is settled."""
        self._calls.pop(call, None)

    def post(self, function: Callable[[], object]) -> bool:
        """Run a function of this library on the loop. Returns False if the loop is closed."""
        if self.loop is None:  # it is about to be made, or could not be
            return not self.ended
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def publish_later(self, call: Call[Any]) -> None:
        """Another thread was in the midst of asking a Future: settle it soon, at the end by `settle_all`."""
        loop = self.loop
        if loop is not None:
            self.post(lambda: loop.call_later(MOMENT, call.publish))

    # Threads

    def is_loop_thread(self) -> bool:
        """True in the loop's own thread, while the loop runs."""
        return self.loop is not None and asyncio._get_running_loop() is self.loop

    def check_wait(self) -> None:
        """Raise `RuntimeError` where a wait would be for ever."""
        __tracebackhide__ = True
        self._check_process()
        if self.is_loop_thread():
            raise RuntimeError("this is the client's own thread, where nothing can be waited for: use its .client")

    def _check_process(self) -> None:
        __tracebackhide__ = True
        if self.is_forked:
            raise RuntimeError("the client belongs to the parent process: make clients after the fork")

    def wait(self, call: Call[Any], settled: threading.Lock, timeout: Optional[float] = None) -> None:
        """Wait until a call is settled: then the lock *settled* is released."""
        settled.acquire(timeout=threading.TIMEOUT_MAX if timeout is None else max(0.0, timeout))

    def join_if_ending(self) -> None:
        """Wait for the end of the loop's thread, if it is ending, and if this thread may wait."""

    def may_join(self) -> bool:
        """True unless the loop's thread may want something of this one before it ends.

        This thread may be in the midst of a call, and run a signal handler.
        """
        return not (self.is_loop_thread() or any(call.holds_up for call in self._calls.copy()))

    # The end

    def close(self) -> None:
        """End the calls, and what else is this runner's."""
        raise NotImplementedError

    def closed(self, why: Optional[BaseException] = None, *, sent: bool) -> ClientClosed:
        """The error of a call that the end has overtaken.

        :arg sent: False if the device cannot have executed what the call asks for.
        """
        return ClientClosed(sent=sent)

    def settle_all(self, error: Callable[[Call[Any]], BaseException]) -> list[Call[Any]]:
        """Settle all calls, each with an error of its own."""
        calls = list(self._calls.copy())
        for call in calls:
            call.settle(None, error(call))
        while not self.is_forked and any(call.future is not None for call in self._calls.copy()):
            for call in self._calls.copy():  # those of Futures that other threads are in the midst of asking
                call.publish()
            time.sleep(MOMENT)
        return calls

    def forked(self) -> None:
        """This is a forked child, where the loop's thread is not."""
        self.is_forked = self.ending = self.ended = True
        self.settle_all(lambda call: RuntimeError("the client belongs to the parent process"))


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def _after_in_child() -> None:
    for runner in list(_runners):
        runner.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
