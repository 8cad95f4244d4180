"""An event loop that is the application's."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Optional

from .. import ClientClosed
from .calls import Call
from .runner import Runner

#: Seconds between two looks whether the loop that a thread waits for is closed.
LOOK = 1.0


class BorrowedLoop(Runner):
    """The event loop of an application, and nothing of ours: at the end only the calls are ended."""

    def check_wait(self) -> None:
        __tracebackhide__ = True
        super().check_wait()
        assert self.loop is not None
        if not self.loop.is_running() and _current_loop() is self.loop:
            raise RuntimeError("this is the loop's own thread, and the loop does not run: nobody would answer")

    def wait(self, call: Call[Any], settled: threading.Lock, timeout: Optional[float] = None) -> None:
        assert self.loop is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        left = LOOK
        while True:
            if deadline is not None:
                left = max(0.0, min(LOOK, deadline - time.monotonic()))
            if settled.acquire(timeout=left) or left == 0.0:
                return
            if self.loop.is_closed():
                call.settle(None, ClientClosed("the loop of the client is closed"))

    def close(self) -> None:
        """End the calls. The loop, and what lives on it, go on."""
        self.ending = self.ended = True
        for call in self.settle_all(lambda call: self.closed(sent=call.begun)):
            self.post(call.cancel)

    def closed(self, why: Optional[BaseException] = None, *, sent: bool) -> ClientClosed:
        return ClientClosed("the blocking face of the client is closed", sent=sent)


def _current_loop() -> Optional[asyncio.AbstractEventLoop]:
    """The event loop that was set for this thread; unlike `asyncio.get_event_loop`, this makes none."""
    local = getattr(asyncio.get_event_loop_policy(), "_local", None)
    loop: Optional[asyncio.AbstractEventLoop] = getattr(local, "_loop", None)
    return loop
