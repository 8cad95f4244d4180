"""``katcp-tornado web``: a live page of devices, served until it is interrupted."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from tornado.web import Application

from ..web.access import host_of
from ..web.site import Site
from .serving import serve
from .targets import HostPort, Target
from .terminal import ExitCode

#: Least characters of a token; fewer can be guessed.
SHORTEST_TOKEN = 8


def read_token(path: str) -> str:
    """The token of a file, without white space around it. Raises `ValueError`."""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"--token-file {path}: {exc}") from None
    if len(token) < SHORTEST_TOKEN:
        raise ValueError(f"--token-file {path}: the token must have {SHORTEST_TOKEN} characters at least")
    return token


def is_loopback(host: str) -> bool:
    """True if nobody on another machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def web(
    targets: Mapping[str, Target],
    listen: HostPort,
    *,
    allow_requests: bool = False,
    origins: Sequence[str] = (),
    token_file: Optional[str] = None,
) -> ExitCode:
    """Serve the page until the end. Raises `ValueError` for options that make no sense."""
    token = None if token_file is None else read_token(token_file)
    hosts = {listen.host, socket.gethostname(), *map(host_of, origins)}
    clients = {name: target.client() for name, target in targets.items()}
    site = Site(clients, "", allow_requests=allow_requests, origins=origins, hosts=_names(hosts), token=token)
    warning = None
    if token is None and not is_loopback(listen.host):
        who = "see the devices and send them requests" if allow_requests else "see the devices"
        warning = f"warning: whoever reaches this port can {who}; see --token-file"
    logging.getLogger("tornado.access").setLevel(logging.ERROR)  # a line for each request helps nobody
    try:
        return await serve(Application(site.handlers()), listen, warning)
    finally:
        for client in clients.values():
            client.close()


def _names(hosts: set[str]) -> list[str]:
    """Those that can stand in the Host of a request; addresses need not be listed."""
    return sorted(host for host in hosts if host and ":" not in host)
