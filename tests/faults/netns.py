"""A network namespace of our own, from Python alone."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from typing import Any

from faults.process_tools import report

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def enter() -> None:
    """Move this process, which must have a single thread, into a new namespace. Raises OSError if it may not."""
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if os.geteuid() else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    loopback(True)


def loopback(up: bool) -> None:
    """Set the loopback interface up or down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)), 16)
        flags = flags | _IFF_UP if up else flags & ~_IFF_UP
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def run(main: Any, *, virtual: Any) -> None:
    """As `process_tools.report`, in a namespace; writes ``{"skipped": why}`` if that is not permitted."""
    try:
        enter()
    except OSError as exc:
        json.dump({"skipped": f"no network namespace: {exc}"}, sys.stdout)
    else:
        report(main, virtual=virtual)
