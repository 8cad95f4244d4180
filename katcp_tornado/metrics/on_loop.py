"""Reading what lives on an IOLoop from the thread of a scrape."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any, Callable, TypeVar

from tornado.ioloop import IOLoop

from .. import Client

R = TypeVar("R")

#: Seconds that a collector waits, in a thread, for its turn on the loop.
PATIENCE = 10.0


def on_loop(io_loop: IOLoop, function: Callable[[], R]) -> R:
    """The result of a function that must run on *io_loop*; called directly if that loop is this thread's, or stopped.

    Raises `TimeoutError` if the loop does not come to it within `PATIENCE` seconds.
    """
    loop = io_loop.asyncio_loop  # type: ignore[attr-defined]
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop or not loop.is_running():
        return function()
    result: concurrent.futures.Future[R] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as exc:
            result.set_exception(exc)

    loop.call_soon_threadsafe(run)
    try:
        return result.result(PATIENCE)
    except concurrent.futures.TimeoutError:
        raise TimeoutError(f"the loop of the clients has not answered within {PATIENCE:g} s") from None


def loop_of(member: Any) -> IOLoop:
    """The IOLoop of a Client, a SensorWatcher or a Device."""
    loop: IOLoop = client_of(member).io_loop
    return loop


def client_of(member: Any) -> Client:
    """The client of a member of a mapping: a `.Client`, or what has one, such as a Device."""
    client: Client = getattr(member, "client", member)
    return client
