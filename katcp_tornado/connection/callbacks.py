"""Callback registry: registers, removes and calls the user's callbacks.

The callbacks of a kind stand in a tuple that is replaced on change, so whoever walks through one has a snapshot.
A callback that raises is logged, and changes nothing for anybody else. `KeyboardInterrupt` and `SystemExit` are not
ours to hold back: they go through, after the state is consistent, and what is still to be told is told later.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable

from ..wire.codec import RawMessage
from ..wire.message import encode_name
from ..wire.version import MAJORS
from .log import write
from .restorers import InformHandler
from .typed_callbacks import Misfit, adapt

if TYPE_CHECKING:
    from .events import Event


Callback = Callable[..., Any]


class Callbacks:
    """The callbacks of one client.

    :arg misfit: told of an inform whose arguments do not fit a callback.
    """

    __slots__ = ("_handlers", "_informs", "_kinds", "_loop", "_misfit", "_tasks", "informs")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, misfit: Callable[[RawMessage, Callback, Exception], None]
    ) -> None:
        self._loop = loop
        self._misfit = misfit
        self._kinds: dict[str, tuple[Callback, ...]] = {}
        self._handlers: dict[bytes, tuple[InformHandler, ...]] = {}
        self._informs: dict[bytes, list[tuple[Callback, dict[int, Callable[[RawMessage], None]]]]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        #: For each major version, from the name of an inform to functions that take the raw message.
        self.informs: dict[int, dict[bytes, tuple[Callable[[RawMessage], None], ...]]] = {m: {} for m in MAJORS}

    def add(self, kind: str, callback: Callback) -> None:
        """Tell *callback* of every event of *kind*: "state", or one of those of `.Event`."""
        _check(callback)
        self._kinds[kind] = (*self._kinds.get(kind, ()), callback)

    def remove(self, kind: str, callback: Callback) -> None:
        """Undo one `add`. Raises `ValueError` if there was none."""
        callbacks = list(self._kinds.get(kind, ()))
        del callbacks[_index(callbacks, callback, f"{kind} callback")]
        self._kinds[kind] = tuple(callbacks)

    def add_inform(self, name: str, callback: Callback) -> None:
        """Call *callback*, as it is annotated, with every asynchronous inform of this name."""
        _check(callback)
        key = encode_name(name)
        adapted = {major: self._guard(adapt(callback, major), callback, name) for major in MAJORS}
        self._informs.setdefault(key, []).append((callback, adapted))
        self._change_inform(key)

    def remove_inform(self, name: str, callback: Callback) -> None:
        """Undo one `add_inform`. Raises `ValueError` if there was none."""
        key = encode_name(name)
        entries = self._informs.get(key, [])
        index = _index([known for known, _ in entries], callback, f"callback of #{name}")
        del entries[index]
        self._change_inform(key)

    def add_inform_handler(self, name: str, handler: InformHandler) -> None:
        """Call a restorer's *handler* with every asynchronous inform of this name, before any user's callback."""
        key = encode_name(name)
        self._handlers[key] = (*self._handlers.get(key, ()), handler)
        self._change_inform(key)

    def _change_inform(self, key: bytes) -> None:
        handlers, entries = self._handlers.get(key, ()), self._informs.get(key, ())
        for major, functions in self.informs.items():
            functions[key] = (*handlers, *(adapted[major] for _, adapted in entries))
            if not functions[key]:
                del functions[key]
        if not entries:
            self._informs.pop(key, None)

    def calls(self, event: Event) -> list[tuple[Callback, tuple[Any, ...]]]:
        """The callbacks of *event* that are registered now, with their arguments; the state callbacks come first."""
        if not self._kinds:
            return []
        state: list[tuple[Callback, tuple[Any, ...]]]
        state = [(callback, (event.old, event.new)) for callback in self._kinds.get("state", ())]
        return state + [(callback, event.args) for callback in self._kinds.get(event.kind or "", ())]

    def call(self, callback: Callback, *args: Any) -> None:
        """Call a user's function; what it raises is logged, and an awaitable that it returns is run as a task."""
        try:
            result = callback(*args)
        except BaseException as exc:
            self._raised(exc, "Exception in callback %r", callback)
        else:
            if result is not None and inspect.isawaitable(result):
                self._run(result, callback)

    def _guard(self, adapted: Callable[[RawMessage], Any], callback: Callback, name: str) -> Callable[..., None]:
        def guarded(raw: RawMessage) -> None:
            try:
                result = adapted(raw)
            except Misfit as exc:
                self._misfit(raw, callback, exc)
            except BaseException as exc:
                self._raised(exc, "Exception in callback %r of #%s", callback, name)
            else:
                if result is not None and inspect.isawaitable(result):
                    self._run(result, callback)

        return guarded

    def _raised(self, error: BaseException, text: str, *args: object) -> None:
        """Take what a callback has raised."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            pass_on(self._loop, error)
        else:
            write(logging.ERROR, text, *args, error=error)

    def _run(self, awaitable: Awaitable[Any], callback: Callback) -> None:
        if self._loop.is_closed():  # and the client with it: nothing will ever run it
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            return
        try:
            task = asyncio.ensure_future(awaitable, loop=self._loop)
        except Exception as exc:  # a Future of another loop
            write(logging.ERROR, "Exception in callback %r", callback, error=exc)
            return
        self._tasks.add(task)  # the loop itself keeps only a weak reference

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                write(logging.ERROR, "Exception in callback %r", callback, error=task.exception())

        task.add_done_callback(done)


def pass_on(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    """Have `KeyboardInterrupt` or `SystemExit` out of a callback end the loop, once the present step is complete.

    Raised at once, it would leave the step half done: a chunk of which the rest is not heard, a state without a timer.
    """
    if loop.is_closed():
        raise error
    loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


def _check(callback: Callback) -> None:
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {type(callback).__name__}")


def _index(callbacks: list[Callback], callback: Callback, what: str) -> int:
    """Where *callback* stands first. Raises `ValueError` if it does not."""
    try:
        return callbacks.index(callback)
    except ValueError:
        raise ValueError(f"{callback!r} is no {what}") from None
