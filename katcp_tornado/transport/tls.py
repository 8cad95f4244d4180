"""TLS: the handshake on a connected socket, and the stream that follows it."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import Any, Callable, Optional, Union

from tornado.ioloop import IOLoop

from . import forks
from .lookup import as_os_error
from .stream import Stream


def certified_name(host: str) -> str:
    """The name that TLS asks for, and looks for in the certificate.

    The zone of an IPv6 address (``fe80::1%eth0``) and the dot at the end of a complete name (``device.example.``) are
    for connecting only [RFC 6066, section 3; RFC 6125, section 6.4].
    """
    return host.partition("%")[0] if ":" in host else host.removesuffix(".")


class Crossed(BlockingIOError):
    """TLS must read before it can write (a renegotiation), or write before it can read (an answer to a key update)."""


class TLSStream(Stream):
    """A `Stream` over TLS, on a socket whose handshake is done.

    Where TLS waits for the opposite of what was asked of it, the socket may be ready all the time for what TLS cannot
    do: the loop does not watch for that until the opposite has happened, and is not kept busy for nothing.
    """

    __slots__ = ("_reads_first", "_writes_first")

    socket: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, *args: Any) -> None:
        super().__init__(sock, *args)
        self._recv_into = partial(_unless_blocking, self._recv_into, ssl.SSLWantWriteError)
        self._send = partial(_unless_blocking, self._send, ssl.SSLWantReadError)
        self._reads_first = self._writes_first = False

    def watch_reading(self) -> None:
        """Override: under one read of IOStream that never ends, so that its registration is there to be changed."""
        self.read_until_close()

    def read_from_fd(self, buf: Any = None) -> Optional[int]:
        """Override: as `Stream`, and also what TLS has decrypted already, of which the loop knows nothing."""
        super().read_from_fd(buf)
        while not self.closed() and self.socket.pending():
            super().read_from_fd()
        if self._reads_first and not self.closed():
            self._reads_first = False
            if self.writing():
                self._watch_writing()
        return None

    def write_to_fd(self, data: Union[bytes, memoryview]) -> int:
        """Override: see the class."""
        try:
            return super().write_to_fd(data)
        except Crossed:
            if not self._writes_first:
                self._reads_first = True
                self._selector.remove_writer(self.fileno())
            raise

    def not_yet(self, error: BlockingIOError) -> None:
        """Override: see the class."""
        if isinstance(error, Crossed):
            self._writes_first = True
            self._selector.remove_reader(self.fileno())
            self._watch_writing()

    def writing(self) -> bool:
        """Override: also for what TLS has to write before it can read."""
        return self._writes_first or super().writing()

    def _handle_write(self) -> None:
        """Override: what TLS has to write first can be written, perhaps."""
        if self._writes_first:
            self._writes_first = False
            self._selector.add_reader(self.fileno(), self.readable)
            self.read_from_fd()
        if not self.closed():
            super()._handle_write()

    def _watch_writing(self) -> None:
        """Watch for writing again, which IOLoop takes for done."""
        watch = IOLoop.READ | IOLoop.ERROR
        self.io_loop.update_handler(self.socket, watch)
        self.io_loop.update_handler(self.socket, watch | IOLoop.WRITE)


def _unless_blocking(call: Callable[[Any], int], crossed: type[ssl.SSLError], data: Any) -> int:
    try:
        return call(data)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as exc:
        raise (Crossed if isinstance(exc, crossed) else BlockingIOError) from None


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
        self._hostname = certified_name(hostname)
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
            self._io_loop.add_handler(self._sock, self._go_on, IOLoop.WRITE)
        except OSError as exc:
            self._finish(exc)
        except (TypeError, ValueError) as exc:
            self._finish(as_os_error(ValueError(str(exc))))
        except Exception as exc:  # of a context of the user's own class
            self._finish(exc)

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
