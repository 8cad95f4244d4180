"""What the commands that serve HTTP have in common: where they listen, and how long."""

from __future__ import annotations

import asyncio
import socket
from typing import Optional

from tornado.httpserver import HTTPServer
from tornado.web import Application

from ..errors import describe
from .targets import HostPort
from .terminal import ExitCode, complain


def listening(listen: HostPort) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.create_server(listen, family=family, backlog=128)
    sock.setblocking(False)
    return sock


async def serve(application: Application, listen: HostPort, warning: Optional[str] = None) -> ExitCode:
    """Serve until the command is cancelled; says on the standard error where, and the *warning*."""
    server = HTTPServer(application)
    try:
        sock = listening(listen)
    except OSError as exc:
        complain(f"cannot listen on {listen}: {describe(exc)}")
        return ExitCode.USAGE
    server.add_socket(sock)
    complain(f"listens on http://{HostPort(listen.host, sock.getsockname()[1])}/")
    if warning is not None:
        complain(warning)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        server.stop()
        await server.close_all_connections()
    return ExitCode.OK
