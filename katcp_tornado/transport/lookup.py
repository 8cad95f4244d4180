"""Names to addresses, without holding up the loop or the interpreter's exit.

A look-up can hang for minutes, and nothing can end it. So each runs in a daemon thread (a pool's threads are
waited for when the interpreter exits), and at most one is under way for a host in this process: who asks for the
same host meanwhile gets the same answer. Answers are never kept.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any, Callable, Optional, Union

from tornado.ioloop import IOLoop

#: Address family, and the address as `socket.socket.connect` wants it.
Address = tuple[int, Any]
#: Called with the addresses, or with what went wrong.
Done = Callable[[list[Address], Optional[BaseException]], None]

_lock = threading.Lock()
# From each host that is being looked up to who wants the answer; perhaps nobody any more.
_under_way: dict[str, list[tuple[IOLoop, Done]]] = {}


def _after_fork() -> None:
    """The threads are gone in the child, and the lock may have been held."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_IPV4 = int(socket.AF_INET)


def address_text(host: object, port: object) -> str:
    """An address for people: ``device:7147``, ``[::1]:7147``."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def numeric(host: str, port: int) -> list[Address]:
    """The address of a host that is an IP address as text, at once; nothing if it is a name."""
    try:
        socket.inet_pton(socket.AF_INET, host)  # most of them, for a tenth of what getaddrinfo costs
        return [(_IPV4, (host, port))]
    except (OSError, ValueError):
        pass
    try:
        return _getaddrinfo(host.encode("ascii"), port, socket.AI_NUMERICHOST)  # bytes: str goes through IDNA first
    except (OSError, ValueError):
        return []


def start(io_loop: IOLoop, host: str, done: Done) -> None:
    """Look *host* up in a thread, then call *done* on the loop, with port 0 in the addresses."""
    with _lock:
        if host in _under_way:
            _under_way[host].append((io_loop, done))
            return
        _under_way[host] = [(io_loop, done)]
    try:
        threading.Thread(target=_run, args=(host,), name=f"look-up of {host}", daemon=True).start()
    except RuntimeError as exc:  # no more threads
        _finish(host, [], OSError(errno.EAGAIN, str(exc)))


def forget(host: str, done: Done) -> None:
    """Do not call *done* any more. The look-up itself cannot be ended."""
    with _lock:
        if host in _under_way:
            _under_way[host][:] = [entry for entry in _under_way[host] if entry[1] != done]


def outstanding() -> int:
    """Number of look-ups that are under way."""
    return len(_under_way)


def latest() -> object:
    """The look-up that was begun last, of those that are under way: another object for each; None if there is none."""
    with _lock:
        return next(reversed(_under_way.values()), None)


def as_os_error(exc: BaseException) -> BaseException:
    """The error of the system: a host that IDNA cannot express is a host that does not exist."""
    if not isinstance(exc, UnicodeError):
        return exc
    error = socket.gaierror(socket.EAI_NONAME, f"not a host name: {exc}")
    error.__cause__ = exc
    return error


def _run(host: str) -> None:
    addresses: list[Address] = []
    error: Optional[BaseException] = None
    try:
        addresses = _getaddrinfo(host, 0, 0)
    except OSError as exc:
        error = _out_of_descriptors() or exc
    except Exception as exc:
        error = as_os_error(exc)
    _finish(host, addresses, error)


def _finish(host: str, addresses: list[Address], error: Optional[BaseException]) -> None:
    with _lock:
        waiting = _under_way.pop(host, [])
    for io_loop, done in waiting:
        io_loop.add_callback(done, addresses, error)


def _getaddrinfo(host: Union[str, bytes], port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), address) for family, _type, _proto, _name, address in found]


def _out_of_descriptors() -> Optional[OSError]:
    """The resolver of the C library says "unknown name", or worse, when it cannot open a file or a socket."""
    try:
        socket.socket().close()
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            return exc
    return None
