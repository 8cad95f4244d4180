"""A Future whose result is made from those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Callable


class Derived(asyncio.Future):  # type: ignore[type-arg]
    """``combine(*results)`` of the *parts*, which are nobody else's.

    It fails with the first part that does, or with what *combine* raises. Whatever settles it, the parts that are
    still pending are given up.
    """

    __slots__ = ("_combine", "_parts")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, parts: Sequence[asyncio.Future[Any]], combine: Callable[..., Any]
    ) -> None:
        super().__init__(loop=loop)
        self._parts = parts
        self._combine = combine
        for part in parts:
            part.add_done_callback(self._look)

    def cancel(self, msg: Any = None) -> bool:
        """Give it up."""
        if not super().cancel(msg):
            return False
        self._give_up()
        return True

    def _look(self, part: asyncio.Future[Any]) -> None:
        if self.done():
            return
        try:
            part.result()  # a Future that is cancelled behind our back raises CancelledError
            if not all(other.done() for other in self._parts):
                return
            result = self._combine(*(other.result() for other in self._parts))
        except asyncio.CancelledError:
            self.cancel()
        except Exception as exc:
            self.set_exception(exc)
            self.exception()  # counts as retrieved from now on
            self._give_up()
        else:
            self.set_result(result)

    def _give_up(self) -> None:
        for part in self._parts:
            part.cancel()
