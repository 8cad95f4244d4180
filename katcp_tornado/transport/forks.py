"""Forked processes: the child lets go of the sockets of its parent without the parent noticing.

A fork copies the descriptors, but not what stands behind them. Parent and child have one epoll: a child that closes an
inherited stream, or collects an inherited event loop, would end the parent's registrations, and the parent would go
deaf. So a forked child, before anything else runs in it,

- gives each loop that a connection lives on an epoll of its own (libev and libuv know this as ``loop_fork``), and
- closes its copies of the connections' descriptors. Nothing is sent: no shutdown, no close_notify of TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import socket
import weakref
from typing import Any, Protocol

from tornado.ioloop import IOLoop


class Owner(Protocol):
    """An object that owns sockets."""

    io_loop: IOLoop

    def forked(self, private: bool) -> None:
        """Called in a forked child: let go of the sockets, by `leave`, which wants to know *private*."""


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def watch(owner: Owner) -> None:
    """Call the owner's ``forked`` in each forked child from now on, as long as the owner lives."""
    _owners.add(owner)


def leave(io_loop: IOLoop, sock: socket.socket, private: bool) -> None:
    """Close this process's copy of a socket.

    :arg private: True if the loop's selector is this process's own; otherwise the loop is not touched.
    """
    if private:
        with contextlib.suppress(Exception):  # the fork may have come in the middle of a step of another thread
            io_loop.remove_handler(sock)
            io_loop.selector_loop.remove_reader(sock.fileno())  # type: ignore[attr-defined]
            io_loop.selector_loop.remove_writer(sock.fileno())  # type: ignore[attr-defined]
    sock.close()


def _after_in_child() -> None:
    private: dict[IOLoop, bool] = {}
    for owner in list(_owners):
        # The fork may have come in the middle of a step of another thread: what goes wrong with one harms no other.
        with contextlib.suppress(Exception):
            io_loop = owner.io_loop
            if io_loop not in private:
                private[io_loop] = _renew(io_loop.asyncio_loop)  # type: ignore[attr-defined]
            owner.forked(private[io_loop])


def _renew(loop: asyncio.AbstractEventLoop) -> bool:
    """Give a loop an epoll of its own. Returns False if its selector is still its parent's, or unknown."""
    selector: Any = getattr(loop, "_selector", None)
    if type(selector).__name__ in ("SelectSelector", "PollSelector"):
        return True  # what they have registered is nowhere but in the process
    if not isinstance(getattr(selector, "_selector", None), getattr(select, "epoll", ())):
        return False  # of uvloop, kqueue
    try:
        epoll = select.epoll()
    except OSError:
        return False
    for key in list(selector.get_map().values()):
        events = select.EPOLLIN * bool(key.events & selectors.EVENT_READ)
        events |= select.EPOLLOUT * bool(key.events & selectors.EVENT_WRITE)
        with contextlib.suppress(OSError):
            epoll.register(key.fd, events)
    selector._selector = epoll  # the other one is closed, in this process
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
