"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Callable, Optional, Protocol, TypeVar

from tornado.ioloop import IOLoop

from .. import ClientClosed
from .calls import Call
from .runner import Runner


class Closable(Protocol):
    """A Client, or a Device."""

    def close(self) -> None: ...

    def wait_closed(self) -> asyncio.Future[None]: ...


C = TypeVar("C", bound=Closable)

logger = logging.getLogger("katcp_tornado")

#: Seconds that tasks have for what they do when they are cancelled.
PATIENCE = 5.0
#: Seconds that are waited for a thread of which it is not certain that it was started.
LAUNCH = 0.5


class OwnLoop(Runner):
    """An event loop in a thread of its own, and the client that lives on it.

    It knows nothing of its user, so that the user can be collected. Whatever ends the thread, its end closes the client
    and settles all calls.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self._thread = threading.Thread(target=self._run, name="katcp_tornado", daemon=True)
        self._starting = False
        self._launched = threading.Event()
        self._owned: Optional[Closable] = None
        self._finishing = False
        self._finished = False
        self._why: Optional[BaseException] = None

    def start(self) -> None:
        """Start the thread."""
        self._starting = True
        self._thread.start()

    def own(self, kind: Callable[..., C], *args: Any, **options: Any) -> C:
        """Make the client; on the loop."""
        made = kind(*args, **options)
        self._owned = made
        return made

    # The thread

    def _run(self) -> None:
        self._launched.set()
        try:
            self.loop = asyncio.new_event_loop()
            self._serve(self.loop)
        except OSError as exc:  # no descriptors are left
            self._why = exc
        finally:
            self.ending = self.ended = True
            self.settle_all(self._last_word)

    def _last_word(self, call: Call[Any]) -> BaseException:
        if self.loop is None and self._why is not None:
            return self._why
        return self.closed(sent=call.begun)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        io_loop = IOLoop.current()
        for call in self._calls.copy():  # from before there was a loop
            loop.call_soon(call.run)
        if self.ending:
            loop.call_soon(self._finish)
        try:
            while not self._finished:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit) as exc:
                    if self._why is None:
                        self._why = exc
                        logger.warning("the thread of %r was ended by %s", self._owned, type(exc).__name__)
                self.ending = True
                self._finish()
        finally:
            asyncio.set_event_loop(None)
            io_loop.close()

    def _finish(self) -> None:
        """Begin the end; on the loop."""
        if not self._finishing:
            self._finishing = True
            self._last_task = asyncio.ensure_future(self._close_all(), loop=self.loop)

    async def _close_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._close_owned()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=PATIENCE)
            await loop.shutdown_asyncgens()
            await loop.shutdown_default_executor()
        finally:
            self._finished = True
            loop.stop()

    async def _close_owned(self) -> None:
        owned = self._owned
        if owned is None:
            return
        try:
            owned.close()
        except (KeyboardInterrupt, SystemExit):  # of a callback: the step is complete
            pass
        await owned.wait_closed()

    # The end

    def closed(self, why: Optional[BaseException] = None, *, sent: bool) -> ClientClosed:
        why = why or self._why
        if not isinstance(why, (KeyboardInterrupt, SystemExit)):
            return ClientClosed(sent=sent)
        error = ClientClosed(f"the client is closed: its thread was ended by {type(why).__name__}", sent=sent)
        error.__cause__ = why.with_traceback(None)
        return error

    def end(self) -> None:
        """Have the client closed, and the thread ended. Waits for nothing."""
        self.ending = True
        self.post(self._finish)

    def close(self) -> None:
        """Close the client, end the thread, and wait for its end, unless this thread may not wait."""
        if not self.is_forked:
            self.end()
            self.join_if_ending()

    def join_if_ending(self) -> None:
        if not self.ending or not self._starting or not self.may_join():
            return
        if threading.current_thread() is self._thread:
            return
        if not (self._launched.is_set() or self._launched.wait(LAUNCH)):
            return  # Ctrl-C has come before it was started; if it was after all, it ends by itself
        self._thread.join()

    def forked(self) -> None:
        self._starting = False  # no thread is here to be waited for
        super().forked()
