"""What is registered for callbacks: in order, and each added and removed in constant time."""

from __future__ import annotations

import contextvars
from collections import deque
from typing import Any, Callable, Generic, Optional, TypeVar

V = TypeVar("V")
Callback = Callable[..., Any]


class InContext:
    """A callback, and the context (of `contextvars`) in which it was registered.

    Each call runs in a copy of that: a callback may be called again while it runs, when it closes the client, say.
    """

    __slots__ = ("callback", "context")

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.context = contextvars.copy_context()

    def __call__(self, *args: Any) -> Any:
        return self.context.copy().run(self.callback, *args)

    def __repr__(self) -> str:
        return repr(self.callback)


class Registry(Generic[V]):
    """Callbacks, each with a value, in the order in which they were added.

    One may be added more than once. `remove` undoes the first `add` of an equal callback: in constant time if it can be
    hashed, as functions and methods can.
    """

    __slots__ = ("_entries", "_next", "_places", "_values")

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Callback, V]] = {}
        self._places: dict[Callback, deque[int]] = {}
        self._next = 0
        self._values: Optional[tuple[V, ...]] = ()

    def add(self, callback: Callback, value: V) -> None:
        """Add a callback."""
        self._entries[self._next] = (callback, value)
        try:
            self._places.setdefault(callback, deque()).append(self._next)
        except TypeError:  # it cannot be hashed
            pass
        self._next += 1
        self._values = None

    def remove(self, callback: Callback, what: str) -> None:
        """Undo an `add`. Raises `ValueError` if there was none; *what* says of what kind the callback is not."""
        place = self._place(callback)
        if place is None:
            raise ValueError(f"{callback!r} is no {what}")
        known, _ = self._entries.pop(place)
        self._values = None
        try:
            places = self._places[known]
            places.remove(place)  # the first of them
            if not places:
                del self._places[known]
        except (KeyError, TypeError, ValueError):  # it cannot be hashed, or not as it was
            pass

    def _place(self, callback: Callback) -> Optional[int]:
        try:
            return self._places[callback][0]
        except (KeyError, TypeError):
            return next((place for place, (known, _) in self._entries.items() if known == callback), None)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def values(self) -> tuple[V, ...]:
        """The values in order: a snapshot."""
        if self._values is None:
            self._values = tuple([value for _, value in self._entries.values()])
        return self._values
