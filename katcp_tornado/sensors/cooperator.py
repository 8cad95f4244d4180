"""Long work, done a little in each turn of the loop: others have a right to it, too."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Callable

#: So many things are done in one turn; of what cannot be divided, at most one more that is as large.
TURN = 500


class Turns:
    """Calls *work* in each turn of the loop for as long as it finds something to do.

    Who does something, in a call of *work* or outside of it, takes as much from `room` as he does, and stops when
    nothing is left of it.
    """

    __slots__ = ("_due", "_lists", "_loop", "_work", "room")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
        self._loop = loop
        self._work = work
        self._due = False
        self._lists: deque[tuple[Iterator[Any], Callable[[Any], None]]] = deque()
        #: How much may still be done in this turn.
        self.room = TURN

    def soon(self) -> None:
        """Go on in the next turn: what is declared in one turn is done together."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._run)

    def take(self, count: int) -> None:
        """So much is being done."""
        self.room -= count
        self.soon()

    def _run(self) -> None:
        self._due = False
        self.room = TURN
        try:
            self._work()
        finally:
            if self.room < TURN:
                self.soon()

    def each(self, things: Iterable[Any], function: Callable[[Any], None]) -> None:
        """Call a function with each of these, in order, after what came before; begin at once if there is room."""
        self._lists.append((iter(things), function))
        self.soon()
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
