"""Informs that are expected before they are asked for."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional

from .. import Client, Message

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .runner import Runner


class ExpectedInform:
    """The context manager of `BlockingClient.expect_inform`; its value is itself."""

    def __init__(
        self,
        runner: Runner,
        client: Client,
        name: str,
        predicate: Optional[Callable[[Message], object]],
        timeout: Optional[float],
    ) -> None:
        self._runner = runner
        self._client = client
        self._what = (name, predicate, timeout)
        self._future: Optional[Future[Any]] = None

    def __enter__(self) -> ExpectedInform:
        __tracebackhide__ = True
        if self._future is not None:
            raise RuntimeError("an expect_inform() can be entered once")
        self._future = future = self._runner.submit(self._client.wait_inform, *self._what)
        try:
            self._runner.call(_nothing)  # it listens now
            if future.done() and future.exception() is not None:
                future.result()
        except BaseException:
            future.cancel()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is not None and self._future is not None:
            self._future.cancel()

    def done(self) -> bool:
        """True if `result` would not wait."""
        return self._future is not None and self._future.done()

    def result(self, timeout: Optional[float] = None) -> Message:
        """The `.Message`; waits for it, at most *timeout* seconds if that is sooner than the timeout that was given.

        Raises what `.Client.wait_inform` raises.
        """
        __tracebackhide__ = True
        if self._future is None:
            raise RuntimeError("an expect_inform() listens from its `with` on")
        message: Message = self._future.result(timeout)
        return message


def _nothing() -> None:
    pass
