"""One mounted page: its settings, and the handlers that serve it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from .access import Access
from .feed import Feed
from .handlers import Files, Login, Page, Slash, Socket


class Site:
    """The page of these devices; see `.handlers` for the arguments.

    :arg token: what a person must enter before seeing anything; None: nothing.
    """

    def __init__(
        self,
        clients: Mapping[str, Any],
        prefix: str = "/katcp",
        *,
        allow_requests: bool = False,
        origins: Iterable[str] = (),
        hosts: Iterable[str] = (),
        token: Optional[str] = None,
    ) -> None:
        if not isinstance(clients, Mapping):
            raise TypeError(f"clients must be a mapping name -> Client, not {type(clients).__name__}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
        prefix = prefix.rstrip("/")
        if prefix and not prefix.startswith("/"):
            raise ValueError(f"prefix must begin with a slash, not {prefix!r}")
        self.prefix = prefix
        self.allow_requests = bool(allow_requests)
        self.access = Access(origins, hosts, token)
        self.feed = Feed(clients, {"requests": self.allow_requests})

    def handlers(self) -> list[Any]:
        """Handlers for a `tornado.web.Application`."""
        prefix, arguments = re.escape(self.prefix), {"site": self}
        found: list[Any] = [(rf"{prefix}/", Page, arguments), (rf"{prefix}/ws", Socket, arguments)]
        if self.prefix:
            found.append((prefix, Slash, arguments))
        if self.access.needs_token:
            found.append((rf"{prefix}/login", Login, arguments))
        found.append((rf"{prefix}/static/(.*)", Files, arguments))
        return found
