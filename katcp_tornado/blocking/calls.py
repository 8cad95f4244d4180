"""Calls: functions that one thread wants to be run on the event loop of another, and their results.

A signal handler may run in a waiting thread at any moment, and may call, or close, the very client that the thread
waits for. So nothing that a thread holds while it waits may be wanted by the loop's thread:

- `Call` is waited for by a lock of its own, which the loop's thread only ever releases.
- `SubmittedFuture` is a `concurrent.futures.Future`, whose methods hold its condition for a moment. The loop's thread
  settles it only when the condition is free, and otherwise tries again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar

if TYPE_CHECKING:
    from .runner import Runner

T = TypeVar("T")

#: Folders whose frames a traceback does not show, where it begins with them.
_INSIDE = (os.path.dirname(os.path.dirname(__file__)) + os.sep, os.path.dirname(asyncio.__file__) + os.sep)


class Call(Generic[T]):
    """A function that is to be run on the loop, and what comes of it.

    Settled once, by whichever thread is first: the loop's with the result, a thread that gives up, the end of the loop.

    :arg late: run it also after the end of the runner was asked for.
    """

    __slots__ = (
        "_awaited",
        "_function",
        "_outcomes",
        "future",
        "late",
        "runner",
        "settled",
        "thread",
    )

    def __init__(self, runner: Runner, function: Callable[[], Any], *, late: bool = False) -> None:
        self.runner = runner
        self.late = late
        #: The thread that waits for it; None if it was submitted.
        self.thread: Optional[int] = threading.get_ident()
        self.future: Optional[SubmittedFuture] = None
        #: One at most: (result, error). `dict.setdefault` cannot be interrupted.
        self._outcomes: dict[None, tuple[Optional[T], Optional[BaseException]]] = {}
        #: Locked until the call is settled.
        self.settled = threading.Lock()
        self.settled.acquire()
        self._function: Optional[Callable[[], Any]] = function
        self._awaited: Optional[asyncio.Future[T]] = None

    # On the loop

    def run(self) -> None:
        """Call the function."""
        function, self._function = self._function, None
        if function is None or self._outcomes:
            return
        if self.runner.ending and not self.late:
            self.settle(None, self.runner.closed(sent=False))
            return
        try:
            result = function()
            if not inspect.isawaitable(result):
                self.settle(result, None)
                return
            self._awaited = asyncio.ensure_future(result)
        except (KeyboardInterrupt, SystemExit):
            raise  # they end the loop, and that settles all calls
        except BaseException as exc:
            self.settle(None, exc)
        else:
            self._awaited.add_done_callback(self._look)

    @property
    def begun(self) -> bool:
        """True once the function was called: what it does to the device may have been done."""
        return self._function is None

    def cancel(self) -> None:
        """Cancel what the function has returned."""
        self._function = None
        if self._awaited is not None:
            self._awaited.cancel()

    def _look(self, awaited: asyncio.Future[T]) -> None:
        error = asyncio.CancelledError() if awaited.cancelled() else awaited.exception()
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            error = self.runner.closed(error, sent=True)
        elif isinstance(error, asyncio.CancelledError) and self.runner.ending:
            error = self.runner.closed(sent=True)
        self.settle(None if error is not None else awaited.result(), error)

    # In any thread

    def settle(self, result: Optional[T], error: Optional[BaseException]) -> None:
        """Settle the call, unless it is settled."""
        outcome = (result, error)
        if self._outcomes.setdefault(None, outcome) is not outcome:
            return
        if self.future is None:
            self.runner.remove(self)
            self.settled.release()
        else:
            self.publish()

    def publish(self) -> None:
        """Settle the Future that the user has, if the call is settled."""
        if self.future is None or not self._outcomes:
            return
        if self.future.publish(*self._outcomes[None]):
            self.runner.remove(self)
        else:
            self.runner.publish_later(self)

    def abandon(self) -> None:
        """Abandons the call."""
        self.settle(None, asyncio.CancelledError())
        self.runner.post(self.cancel)

    def outcome(self) -> T:
        """The result of a call that is settled; raises its error, with a traceback that begins here."""
        __tracebackhide__ = True
        result, error = self._outcomes[None]
        self._outcomes[None] = (None, None)  # the error's traceback would hold what the caller holds
        if error is None:
            return result  # type: ignore[return-value]
        try:
            raise error.with_traceback(shown(error.__traceback__))
        finally:
            del error  # its traceback holds this frame

    @property
    def holds_up(self) -> bool:
        """True if this thread waits for the call, or is in a method of its Future that holds the condition."""
        if self.future is not None:
            return self.future.is_held()
        return self.thread == threading.get_ident()


class SubmittedFuture(concurrent.futures.Future):  # type: ignore[type-arg]
    """The result of a function that was submitted to the loop of another thread.

    Cancelling it cancels what the function has returned. To wait for it on the loop's own thread is a RuntimeError.
    """

    def __init__(self, call: Call[Any]) -> None:
        super().__init__()
        self._call = call
        self._quiet = False

    def cancel(self) -> bool:
        """Cancel the call, unless it has a result. Returns True if it is cancelled."""
        if not super().cancel():
            return False
        self._call.abandon()
        return True

    def result(self, timeout: Optional[float] = None) -> Any:
        """The result; waits for it at most *timeout* seconds."""
        __tracebackhide__ = True
        self._wait(timeout)
        try:
            return super().result(0)
        finally:
            del self  # for the sake of the exception's traceback

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """The exception, or None; waits at most *timeout* seconds."""
        __tracebackhide__ = True
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: Optional[float]) -> None:
        __tracebackhide__ = True
        runner = self._call.runner
        if not self.done():
            runner.check_wait()
            settled = threading.Lock()
            settled.acquire()
            self.add_done_callback(lambda _: settled.release())
            runner.wait(self._call, settled, timeout)
        if self.done():
            runner.join_if_ending()

    def publish(self, result: Any, error: Optional[BaseException]) -> bool:
        """Settle it, unless another thread holds its condition: then returns False."""
        if not self._condition.acquire(blocking=False):
            return False
        self._quiet = True  # its callbacks are called without the condition
        try:
            if error is not None:
                self.set_exception(error.with_traceback(shown(error.__traceback__)))
            else:
                self.set_result(result)
        except concurrent.futures.InvalidStateError:  # cancelled
            return True
        finally:
            self._quiet = False
            self._condition.release()
        self._invoke_callbacks()
        return True

    def is_held(self) -> bool:
        """True if this thread holds the condition."""
        held: bool = self._condition._is_owned()  # type: ignore[attr-defined]
        return held

    def _invoke_callbacks(self) -> None:
        if not self._quiet:
            super()._invoke_callbacks()  # type: ignore[misc]


def shown(traceback: Optional[TracebackType]) -> Optional[TracebackType]:
    """The part of a traceback that begins with code that is not this library's, nor asyncio's; None if all is."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_INSIDE):
        traceback = traceback.tb_next
    return traceback
