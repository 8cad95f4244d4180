"""Base of the blocking classes."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .. import ClientClosed, NotConnected
from .own_loop import Closable, OwnLoop
from .runner import Runner

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Self

C = TypeVar("C", bound=Closable)


class NotConnectedAnyMore(NotConnected, ClientClosed):
    """A request was made of a `BlockingClient` that is closed: a `.NotConnected`, and a `.ClientClosed`."""

    sent = False


class Face:
    """Base of the blocking classes: calls, and the end."""

    _runner: Runner
    #: True of the face that the thread was started for: with it, the thread ends.
    _owns_thread = False

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why there is no link; see `.Client.last_exc`."""
        raise NotImplementedError

    def _start(self, kind: Callable[..., C], *args: Any, **options: Any) -> C:
        """Make a client on a loop in a thread of its own."""
        __tracebackhide__ = True
        if "io_loop" in options:
            raise TypeError(f"a {type(self).__name__} has an io_loop of its own")
        self._runner = runner = OwnLoop()
        self._owns_thread = True
        try:
            runner.start()
            made: C = runner.call(runner.own, kind, *args, **options)
        except BaseException:
            runner.close()
            raise
        return made

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call any function on the client's loop, and return its result; if that is awaitable, what comes of it.

        For all that has no method here: ``client.call(forward_logs, client.client, logger)``. Interrupted by Ctrl-C, it
        cancels what it waits for. Raises `.ClientClosed` once the client is closed, and `RuntimeError` on the
        loop's own thread, and in a forked child.
        """
        __tracebackhide__ = True
        return self._runner.call(function, *args, **kwargs)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call any function on the client's loop, and do not wait: a Future of what `call` returns.

        It is a `concurrent.futures.Future`. Cancelling it cancels what the function has returned. Its callbacks run on
        the loop's thread. May be called on the loop's own thread, too.
        """
        __tracebackhide__ = True
        return self._runner.submit(function, *args, **kwargs)

    def _ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a request; to a client that is closed already, it is one without a link."""
        __tracebackhide__ = True
        runner = self._runner
        if runner.ended and isinstance(runner, OwnLoop) and not runner.is_forked:
            error = NotConnectedAnyMore("not connected (the client is closed)")
            error.__cause__ = self.last_exc
            raise error
        return runner.call(method, *args, **options)

    def _do(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that waits for nothing; on the loop's thread, too."""
        __tracebackhide__ = True
        if self._runner.is_loop_thread():
            function(*args)
        else:
            self._runner.call(function, *args)

    def close(self) -> None:
        """Close the client, and wait until it, its loop and its thread have ended. May be called again.

        All calls of other threads end with `.ClientClosed`. It does not wait in a callback, on the client's own thread,
        nor in a signal handler that has interrupted a call of this client: that call waits then, and raises
        `.ClientClosed`. Of what was made by `wrap`, only the calls are ended. In a forked child it does nothing.
        """
        self._runner.close()

    def _wait_closed(self, wait_closed: Callable[..., Any], timeout: Optional[float]) -> None:
        __tracebackhide__ = True
        try:
            self._runner.call(wait_closed, timeout)
        except ClientClosed:  # the thread has ended, and with it all that lived there
            if not isinstance(self._runner, OwnLoop):
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        runner = getattr(self, "_runner", None)
        if not isinstance(runner, OwnLoop) or not self._owns_thread or runner.ending:
            return
        runner.end()  # first: the warning may be an error
        try:
            text = repr(self)
        except Exception:  # of a subclass
            text = object.__repr__(self)
        warnings.warn(f"unclosed {text}", ResourceWarning, stacklevel=2, source=self)
