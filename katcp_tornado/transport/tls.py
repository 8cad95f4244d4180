"""TLS: the handshake on a connected socket, and the stream that follows it."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import Any, Callable, Optional

from tornado.ioloop import IOLoop

from . import forks
from .lookup import as_os_error
from .stream import Stream


class TLSStream(Stream):
    """A `Stream` over TLS, on a socket whose handshake is done."""

    __slots__ = ()

    socket: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, *args: Any) -> None:
        super().__init__(sock, *args)
        self._recv_into = partial(_unless_blocking, self._recv_into)
        self._send = partial(_unless_blocking, self._send)

    def read_from_fd(self, buf: Any = None) -> Optional[int]:
        """Override: as `Stream`, and also what TLS has decrypted already, of which the loop knows nothing."""
        super().read_from_fd(buf)
        while not self.closed() and self.socket.pending():
            super().read_from_fd()
        return None


def _unless_blocking(call: Callable[[Any], int], data: Any) -> int:
    try:
        return call(data)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


class Handshake:
    """The TLS handshake on a connected socket.

    :arg done: called once with the encrypted socket, or with what went wrong (the socket is closed then); never
        before `start` has returned, and not after `close`.

    Tornado's own SSLIOStream could do it, but logs each failure by itself, at every attempt.
    """

    def __init__(
        self,
        io_loop: IOLoop,
        sock: socket.socket,
        context: ssl.SSLContext,
        hostname: str,
        done: Callable[[Optional[ssl.SSLSocket], Optional[BaseException]], None],
    ) -> None:
        self._io_loop = io_loop
        self._sock: socket.socket = sock
        self._context = context
        self._hostname = hostname
        self._done: Optional[Callable[[Optional[ssl.SSLSocket], Optional[BaseException]], None]] = done

    def start(self) -> None:
        """Begin."""
        self._io_loop.add_handler(self._sock, self._begin, IOLoop.WRITE)

    def close(self) -> None:
        """End it, and close the socket."""
        if self._done is not None:
            self._done = None
            self._io_loop.remove_handler(self._sock)
            self._sock.close()

    def leave(self, private: bool) -> None:
        """This is a forked child: close its copy of the socket; see `forks.leave`."""
        forks.leave(self._io_loop, self._sock, private)

    def _begin(self, fd: Any, events: int) -> None:
        self._io_loop.remove_handler(self._sock)
        try:
            # First without the socket, which wrap_socket() would leak if TLS cannot express the host name.
            self._context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self._hostname)
            self._sock = self._context.wrap_socket(
                self._sock, server_hostname=self._hostname, do_handshake_on_connect=False
            )
        except OSError as exc:
            self._finish(exc)
        except (TypeError, ValueError) as exc:
            self._finish(as_os_error(ValueError(str(exc))))
        else:
            self._io_loop.add_handler(self._sock, self._go_on, IOLoop.WRITE)

    def _go_on(self, fd: Any, events: int) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._io_loop.update_handler(self._sock, IOLoop.READ)
        except ssl.SSLWantWriteError:
            self._io_loop.update_handler(self._sock, IOLoop.WRITE)
        except Exception as exc:
            self._io_loop.remove_handler(self._sock)
            self._finish(exc)
        else:
            self._io_loop.remove_handler(self._sock)
            self._finish(None)

    def _finish(self, error: Optional[BaseException]) -> None:
        done, self._done = self._done, None
        assert done is not None
        if error is not None:
            self._sock.close()
            done(None, error)
        else:
            assert isinstance(self._sock, ssl.SSLSocket)
            done(self._sock, None)
