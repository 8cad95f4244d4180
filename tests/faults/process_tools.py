"""What the scripts share that run in processes of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from tornado.ioloop import IOLoop

from katcp_tornado.testing import VirtualTimeLoop


def report(main: Any, *, virtual: Any) -> None:
    """Run *main*, a coroutine function, and write what it returns, as JSON. Errors that reach the loop are fatal."""
    logging.getLogger("katcp_tornado").addHandler(logging.NullHandler())
    if virtual:
        io_loop = VirtualTimeLoop()
    else:
        asyncio.set_event_loop(asyncio.new_event_loop())
        io_loop = IOLoop.current()
    errors = []
    io_loop.asyncio_loop.set_exception_handler(lambda _, context: errors.append(repr(context)))
    found = io_loop.run_sync(main)
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)
    assert errors == []
    json.dump(found, sys.stdout)
