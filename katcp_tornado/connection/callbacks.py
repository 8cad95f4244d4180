"""Callback registry: registers, removes and calls the user's callbacks.

The callbacks of a kind stand in a `Registry`, of which a snapshot is called, each in a copy of
the context of its registration.
A callback that raises is logged, and changes nothing for anybody else. `KeyboardInterrupt` and `SystemExit` are not
ours to hold back: they go through, after the state is consistent, and what is still to be told is told later.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from ..wire.codec import RawMessage
from ..wire.message import Message, encode_name
from ..wire.version import MAJORS
from .log import write
from .registry import Callback, InContext, Registry
from .restorers import InformHandler
from .typed_callbacks import Misfit, adapt

if TYPE_CHECKING:
    from .events import Event


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
        self._kinds: dict[str, Registry[InContext]] = {}
        self._handlers: dict[bytes, tuple[InformHandler, ...]] = {}
        self._informs: dict[bytes, Registry[dict[int, Callable[[RawMessage], None]]]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        #: For each major version, from the name of an inform to functions that take the raw message.
        self.informs: dict[int, dict[bytes, tuple[Callable[[RawMessage], None], ...]]] = {m: {} for m in MAJORS}

    def add(self, kind: str, callback: Callback) -> None:
        """Tell *callback* of every event of *kind*: "state", or one of those of `.Event`."""
        _check(callback)
        self._kinds.setdefault(kind, Registry()).add(callback, InContext(callback))

    def remove(self, kind: str, callback: Callback) -> None:
        """Undo one `add`. Raises `ValueError` if there was none."""
        self._kinds.get(kind, Registry()).remove(callback, f"{kind} callback")

    def add_inform(self, name: str, callback: Callback) -> None:
        """Call *callback*, as it is annotated, with every asynchronous inform of this name."""
        _check(callback)
        self._add_inform(name, callback, {major: adapt(callback, major) for major in MAJORS})

    def add_waiting(self, name: str, heard: Callable[[Message], None]) -> None:
        """As `add_inform`, for one of the library's own that takes the message."""

        def take(raw: RawMessage) -> None:
            heard(Message.wrap(raw))

        self._add_inform(name, heard, dict.fromkeys(MAJORS, take))

    def _add_inform(self, name: str, callback: Callback, adapted: dict[int, Callable[[RawMessage], Any]]) -> None:
        key = encode_name(name)
        registered = InContext(callback)
        guarded = {major: self._guard(function, registered, name) for major, function in adapted.items()}
        self._informs.setdefault(key, Registry()).add(callback, guarded)
        self._change_inform(key)

    def remove_inform(self, name: str, callback: Callback) -> None:
        """Undo one `add_inform`. Raises `ValueError` if there was none."""
        key = encode_name(name)
        self._informs.get(key, Registry()).remove(callback, f"callback of #{name}")
        self._change_inform(key)

    def add_inform_handler(self, name: str, handler: InformHandler) -> None:
        """Call a restorer's *handler* with every asynchronous inform of this name, before any user's callback."""
        key = encode_name(name)
        self._handlers[key] = (*self._handlers.get(key, ()), handler)
        self._change_inform(key)

    def _change_inform(self, key: bytes) -> None:
        """The functions are gathered when the next inform comes: so 10,000 changes cost as little as one."""
        if not self._informs.get(key):
            self._informs.pop(key, None)
        for major, functions in self.informs.items():
            if key in self._informs or key in self._handlers:
                functions[key] = (partial(self._gather, major, key),)
            else:
                functions.pop(key, None)

    def _gather(self, major: int, key: bytes, raw: RawMessage) -> None:
        """Stands for the callbacks of an inform until it comes: gathers them, and calls them."""
        registered = self._informs[key].values if key in self._informs else ()
        functions = (*self._handlers.get(key, ()), *(adapted[major] for adapted in registered))
        self.informs[major][key] = functions
        for function in functions:
            function(raw)

    def calls(self, event: Event) -> list[tuple[Callback, tuple[Any, ...]]]:
        """The callbacks of *event* that are registered now, with their arguments; the state callbacks come first."""
        if not self._kinds:
            return []
        state: list[tuple[Callback, tuple[Any, ...]]]
        state = [(callback, (event.old, event.new)) for callback in self._registered("state")]
        return state + [(callback, event.args) for callback in self._registered(event.kind or "")]

    def _registered(self, kind: str) -> tuple[InContext, ...]:
        return self._kinds[kind].values if kind in self._kinds else ()

    def call(self, callback: Callback, *args: Any) -> None:
        """Call a user's function; what it raises is logged, and an awaitable that it returns is run as a task."""
        try:
            if callback.__class__ is InContext:  # without a call in Python
                result = callback.context.copy().run(callback.callback, *args)
            else:
                result = callback(*args)
        except BaseException as exc:
            self._raised(exc, "Exception in callback %r", callback)
        else:
            if result is not None and inspect.isawaitable(result):
                self._run(result, callback)

    def _guard(
        self, adapted: Callable[[RawMessage], Any], callback: InContext, name: str
    ) -> Callable[[RawMessage], None]:
        copy = callback.context.copy

        def guarded(raw: RawMessage) -> None:
            try:
                result = copy().run(adapted, raw)
            except Misfit as exc:
                self._misfit(raw, callback.callback, exc)
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
            context = callback.context.copy() if isinstance(callback, InContext) else contextvars.copy_context()
            task = context.run(partial(asyncio.ensure_future, awaitable, loop=self._loop))
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
