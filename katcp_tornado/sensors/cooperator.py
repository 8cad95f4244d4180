"""Long work, done in slices, one in each turn of the loop, so that the loop is never held up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Callable

#: So many things are done in one turn; of what cannot be divided, at most one more that is as large.
TURN = 500


class Cooperator:
    """Calls *work* in each turn of the loop for as long as it finds something to do.

    Whatever is done, in a call of *work* or outside of it, is taken from `room`, and stops when nothing is left of it.

    :arg after: called at the end of each slice of work.
    """

    __slots__ = ("_after", "_depth", "_due", "_lists", "_loop", "_work", "room")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], None], after: Callable[[], None] = lambda: None
    ) -> None:
        self._loop = loop
        self._work = work
        self._after = after
        self._depth = 0
        self._due = False
        self._lists: deque[tuple[Iterator[Any], Callable[[Any], None]]] = deque()
        #: How much may still be done in this turn.
        self.room = TURN

    def soon(self) -> None:
        """Go on in the next turn: what is declared in one turn is done together."""
        if not self._due and not self._loop.is_closed():
            self._due = True
            self._loop.call_soon(self._run)

    def take(self, count: int) -> None:
        """Takes room for work that is being done."""
        self.room -= count
        self.soon()

    def _run(self) -> None:
        self._due = False
        self.room = TURN
        try:
            with self.slice():
                self._work()
        finally:
            if self.room < TURN:
                self.soon()

    @contextlib.contextmanager
    def slice(self) -> Iterator[None]:
        """One slice of work: what it leads to is told at the end of the outermost."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if not self._depth:
            self._after()

    def each(self, things: Iterable[Any], function: Callable[[Any], None]) -> None:
        """Call a function with each of these, in order, after what came before; begin at once if there is room."""
        self._lists.append((iter(things), function))
        self.soon()
        with self.slice():
            self.go_on()

    def go_on(self) -> None:
        """Call the functions of `each`, as far as there is room."""
        lists = self._lists
        while lists and self.room > 0:
            things, function = lists[0]
            for thing in islice(things, self.room):
                self.room -= 1
                function(thing)
                if not lists:  # the function has led to `forget`
                    return
            if self.room > 0:
                lists.popleft()

    def forget(self) -> None:
        """Drop what is left of every `each`."""
        self._lists.clear()
