"""A live page of devices, to mount in a Tornado application; it needs nothing but tornado.

::

    app = tornado.web.Application(katcp_tornado.web.handlers({"m000": client}) + my_handlers)

The page is at ``/katcp/``. It shows the devices with their connection, their sensors, their log and, only if that is
allowed, takes requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .site import Site

__all__ = ["handlers"]


def handlers(
    clients: Mapping[str, Any],
    prefix: str = "/katcp",
    *,
    allow_requests: bool = False,
    origins: Iterable[str] = (),
    hosts: Iterable[str] = (),
) -> list[Any]:
    """Handlers for a `tornado.web.Application`: a live page of *clients*.

    :arg clients: mapping from a name to a `.Client`, or a `.Device`. Members may come and go later; a page follows
        within a second.
    :arg prefix: path of the page, which is at ``{prefix}/``; its WebSocket is at ``{prefix}/ws``. Every URL of the page
        is relative, so that a proxy may put a path in front of it.
    :arg allow_requests: True lets whoever sees the page send any request to the devices.
    :arg origins: origins beside the page's own, such as ``https://control.example.org``, from which browsers may come:
        those of a proxy, or of a page that embeds this one. All others are refused (403).
    :arg hosts: names under which the server is reached, beside IP addresses and ``localhost``. A request for any other
        host is refused (403): so no foreign name can be pointed at the server [DNS rebinding].

    The sensors are sampled only while a page is open, and for 5 s after. Raises `TypeError` or `ValueError` for
    arguments that make no sense.
    """
    return Site(clients, prefix, allow_requests=allow_requests, origins=origins, hosts=hosts).handlers()
