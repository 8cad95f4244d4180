"""TLS for the tests: contexts of the certificates in ``data``, and the other end of a connection, step by step."""

from __future__ import annotations

import _ssl
import ctypes
import socket
import ssl
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from tornado.ioloop import IOLoop

DATA = Path(__file__).parent / "data"
MIB = 1024**2


def server_context(name: str = "device.pem") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(DATA / name)
    return context


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(DATA / "ca.pem"))


class Peer:
    """The other end of TLS: memory BIOs on a socket, so that every step is ours."""

    def __init__(self, io_loop: Any, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.io_loop = io_loop
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.up = False
        self.data = b""
        self.pending = b""
        self.ended = False
        self.reading = True
        self.error: Optional[OSError] = None
        io_loop.add_handler(sock, self.work, IOLoop.READ)

    def work(self, *_: Any) -> None:
        try:
            data = self.sock.recv(MIB)
        except OSError as exc:
            self.error = exc
            data = b""
        if data:
            self.incoming.write(data)
        else:
            self.ended = True
            self.close()
            return
        try:
            if not self.up:
                self.tls.do_handshake()
                self.up = True
            while True:
                data = self.tls.read(MIB)
                if not data:
                    break
                self.data += data
                self.heard(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.error = exc
        self.flush()

    def heard(self, data: bytes) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def flush(self) -> None:
        self.pending += self.outgoing.read()
        try:
            sent = self.sock.send(self.pending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.pending = b""
            return
        self.pending = self.pending[sent:]
        if self.pending:
            self.io_loop.add_callback(self.flush)

    def say_goodbye(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.flush()

    def close(self, how: Callable[[socket.socket], Any] = socket.socket.close) -> None:
        self.io_loop.remove_handler(self.sock)
        how(self.sock)

    def stop_reading(self) -> None:
        self.io_loop.remove_handler(self.sock)

    def resume_reading(self) -> None:
        self.io_loop.add_handler(self.sock, self.work, IOLoop.READ)

    # What Python's ssl does not offer, of the library that it is built on

    def renegotiate(self) -> None:
        """Ask for a renegotiation, which TLS 1.2 has."""
        self._call("SSL_renegotiate")

    def update_key(self) -> None:
        """Change the key, and ask the other end for the same, which TLS 1.3 has."""
        self._call("SSL_key_update", 1)

    def _call(self, function: str, *args: int) -> None:
        library = ctypes.CDLL(_ssl.__file__)
        if not hasattr(library, function):
            pytest.skip("this Python's ssl has OpenSSL inside")
        # struct PySSLSocket { PyObject_HEAD; PyObject *Socket; SSL *ssl; ...
        address = id(self.tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # type: ignore[attr-defined]
        connection = ctypes.c_void_p.from_address(address)
        assert getattr(library, function)(connection, *args) == 1
        library.SSL_do_handshake(connection)
        self.flush()
