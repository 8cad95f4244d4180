"""A port of this machine on which something listens, or refuses."""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any, Optional

from tornado.netutil import bind_sockets

_BACKLOG = 4096


class Port:
    """A TCP port that stays ours, from the first `listen` to `release`.

    While nobody listens it is held by a socket that does not: so connections are refused, nobody else gets the port,
    and no client connects to itself.

    :arg host: a numeric address of this machine.
    :arg number: 0 lets the system choose, at the first `listen`.
    """

    def __init__(self, host: str, number: int = 0) -> None:
        self.host = host
        self.number = number
        self._held: Optional[weakref.finalize[..., Any]] = None  # closes the socket that holds the port

    def listen(self) -> socket.socket:
        """A listening socket, which does not block. The caller closes it."""
        self.release()
        (sock,) = bind_sockets(self.number, address=self.host, backlog=_BACKLOG)
        self.number = sock.getsockname()[1]
        return sock

    def hold(self) -> None:
        """Refuse connections: to be called when the listening socket has just been closed."""
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        try:
            if os.name != "nt":  # there it would let another program take the port
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.number))
        except OSError:  # somebody was faster, which listen() will report
            sock.close()
        else:
            self._held = weakref.finalize(self, socket.close, sock.detach())

    def release(self) -> None:
        """Give up the port that `hold` has held."""
        if self._held is not None:
            self._held()
            self._held = None
