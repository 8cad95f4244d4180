"""Who wants to hear of what, and the telling.

The callbacks of a kind stand in a tuple that is replaced on change, so whoever walks through one has a snapshot.
A callback that raises is logged, and changes nothing for anybody else. `KeyboardInterrupt` and `SystemExit` are not
ours to hold back: they go through, after the state is consistent, and what is still to be told is told later.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Iterator
from typing import Any, Callable, NamedTuple, Optional

from .codec import RawMessage
from .informs import Misfit, adapt
from .message import encode_name
from .protocol import MAJORS
from .states import State

logger = logging.getLogger("katcp_tornado")

Callback = Callable[..., Any]


class Event(NamedTuple):
    """A step of the state machine."""

    old: State
    new: State
    #: "connected", "disconnected" or "failed_connect"; None if only state listeners hear of it.
    kind: Optional[str]
    #: What the callbacks of that kind are called with.
    args: tuple[Any, ...] = ()


class Listeners:
    """The callbacks of one client.

    :arg misfit: told of an inform whose arguments do not fit a callback.
    """

    __slots__ = ("_informs", "_kinds", "_loop", "_misfit", "_own", "_own_informs", "_tasks", "informs")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, misfit: Callable[[RawMessage, Callback, Exception], None]
    ) -> None:
        self._loop = loop
        self._misfit = misfit
        self._kinds: dict[str, tuple[Callback, ...]] = {}
        self._own: tuple[Callable[[Event], None], ...] = ()
        self._own_informs: dict[bytes, tuple[Callable[[RawMessage], None], ...]] = {}
        self._informs: dict[bytes, list[tuple[Callback, dict[int, Callable[[RawMessage], None]]]]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        #: For each major version, from the name of an inform to functions that take the raw message.
        self.informs: dict[int, dict[bytes, tuple[Callable[[RawMessage], None], ...]]] = {m: {} for m in MAJORS}

    def add(self, kind: str, callback: Callback) -> None:
        """Tell *callback* of every event of *kind*: "state", or one of those of `Event`."""
        _check(callback)
        self._kinds[kind] = (*self._kinds.get(kind, ()), callback)

    def remove(self, kind: str, callback: Callback) -> None:
        """Undo one `add`. Raises `ValueError` if there was none."""
        callbacks = list(self._kinds.get(kind, ()))
        del callbacks[_index(callbacks, callback, f"{kind} callback")]
        self._kinds[kind] = tuple(callbacks)

    def add_own(self, listener: Callable[[Event], None]) -> None:
        """Tell a part of the library of every event, before any user's callback."""
        self._own = (*self._own, listener)

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

    def add_own_inform(self, name: str, function: Callable[[RawMessage], None]) -> None:
        """Call a part of the library with every asynchronous inform of this name, before any user's callback."""
        key = encode_name(name)
        self._own_informs[key] = (*self._own_informs.get(key, ()), function)
        self._change_inform(key)

    def _change_inform(self, key: bytes) -> None:
        own, entries = self._own_informs.get(key, ()), self._informs.get(key, ())
        for major, functions in self.informs.items():
            functions[key] = (*own, *(adapted[major] for _, adapted in entries))
            if not functions[key]:
                del functions[key]
        if not entries:
            self._informs.pop(key, None)

    def calls(self, event: Event) -> Iterator[tuple[Callback, tuple[Any, ...]]]:
        """Whom to call of *event*, and with what: those of now, the library's own first, then the state listeners."""
        if not (self._own or self._kinds):
            return iter(())
        own: list[tuple[Callback, tuple[Any, ...]]] = [(listener, (event,)) for listener in self._own]
        state = [(callback, (event.old, event.new)) for callback in self._kinds.get("state", ())]
        return iter(own + state + [(callback, event.args) for callback in self._kinds.get(event.kind or "", ())])

    def call(self, callback: Callback, *args: Any) -> None:
        """Call a user's function; what it raises is logged, and an awaitable that it returns is run as a task."""
        try:
            result = callback(*args)
        except (Exception, asyncio.CancelledError):
            logger.exception("Exception in callback %r", callback)
        else:
            if result is not None and inspect.isawaitable(result):
                self._run(result, callback)

    def _guard(self, adapted: Callable[[RawMessage], Any], callback: Callback, name: str) -> Callable[..., None]:
        def guarded(raw: RawMessage) -> None:
            try:
                result = adapted(raw)
            except Misfit as exc:
                self._misfit(raw, callback, exc)
            except (Exception, asyncio.CancelledError):
                logger.exception("Exception in callback %r of #%s", callback, name)
            else:
                if result is not None and inspect.isawaitable(result):
                    self._run(result, callback)

        return guarded

    def _run(self, awaitable: Awaitable[Any], callback: Callback) -> None:
        if self._loop.is_closed():  # and the client with it: nothing will ever run it
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            return
        try:
            task = asyncio.ensure_future(awaitable, loop=self._loop)
        except Exception:  # a Future of another loop
            logger.exception("Exception in callback %r", callback)
            return
        self._tasks.add(task)  # the loop itself keeps only a weak reference

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                logger.error("Exception in callback %r", callback, exc_info=task.exception())

        task.add_done_callback(done)


def _check(callback: Callback) -> None:
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {type(callback).__name__}")


def _index(callbacks: list[Callback], callback: Callback, what: str) -> int:
    """Where *callback* stands first. Raises `ValueError` if it does not."""
    try:
        return callbacks.index(callback)
    except ValueError:
        raise ValueError(f"{callback!r} is no {what}") from None
