"""How long the device says that its requests may take: ``?request-timeout-hint`` [section 5.1]."""

from __future__ import annotations

import asyncio
import math
from functools import partial

from .codec import RawMessage
from .link import Link
from .listeners import Event
from .requests import Reply
from .values import decode


class Hints:
    """Keeps the default deadlines of a link's requests to what the device says, where it has flag T.

    Asked on each connection, and again when the device says that its requests have changed. A request made before the
    answer has come has the ordinary deadline.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        link.listeners.add_own(self._moved)
        link.listeners.add_own_inform("interface-changed", self._changed)

    def _moved(self, event: Event) -> None:
        if event.kind == "connected":
            self._ask()
        elif event.kind == "disconnected":
            self._link.ledger.timeouts = {}

    def _changed(self, raw: RawMessage) -> None:
        if not raw.arguments or raw.arguments[0] in (b"request-list", b"request"):
            self._ask()

    def _ask(self) -> None:
        session = self._link.session
        protocol = session.protocol if session is not None else None
        if protocol is not None and protocol.supports("T") and self._link.is_connected():
            request = self._link.ledger.request("request-timeout-hint", ())
            request.future.add_done_callback(partial(self._answered, session))

    def _answered(self, session: object, request: asyncio.Future[Reply]) -> None:
        if session is not self._link.session:
            return
        error = request.exception()
        if error is not None:
            self._link.reporter.refused("?request-timeout-hint", error)
            return
        timeouts = {}
        for inform in request.result().informs:
            try:
                name, hint = inform.arguments[0], decode(float, inform.arguments[1])
            except (ValueError, IndexError) as exc:
                self._link.reporter.nonsense(inform, exc)
                continue
            if 0 < hint < math.inf:  # 0: there is none
                timeouts[name] = hint
        self._link.ledger.timeouts = timeouts
