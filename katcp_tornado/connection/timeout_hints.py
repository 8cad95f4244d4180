"""Default deadlines that the device names: ``?request-timeout-hint`` [section 5.1]."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Optional

from ..wire.codec import RawMessage
from ..wire.values import decode
from .brake import Brake
from .link import Link
from .requests import Reply
from .restorers import InformHandler, Restorer


class TimeoutHints(Restorer):
    """Keeps the default deadlines of a link's requests to what the device says, where it has flag T.

    Asked on each connection, and again when the device says that its requests have changed. A request made before the
    answer has come has the ordinary deadline.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._brake = Brake(link.loop, self._ask)

    def inform_handlers(self) -> Mapping[str, InformHandler]:
        return {"interface-changed": self._changed}

    def connected(self) -> None:
        self._brake.ask()

    def protocol_changed(self) -> None:
        self._brake.reset()
        self._brake.ask()

    def disconnected(self) -> None:
        self._brake.reset()
        self._link.pending.timeouts = {}

    def _changed(self, raw: RawMessage) -> None:
        if not raw.arguments or raw.arguments[0] in (b"request-list", b"request"):
            self._brake.announce()

    def _ask(self) -> Optional[asyncio.Future[Reply]]:
        session = self._link.session
        protocol = session.protocol if session is not None else None
        if protocol is not None and protocol.supports("T") and self._link.is_connected():
            future = self._link.pending.ask("request-timeout-hint").future
            future.add_done_callback(partial(self._answered, session))
            return future
        return None

    def _answered(self, session: object, request: asyncio.Future[Reply]) -> None:
        if session is not self._link.session:
            return
        error = request.exception()
        if error is not None:
            self._link.log.refused("?request-timeout-hint", error)
            return
        timeouts = {}
        for inform in request.result().informs:
            try:
                name, hint = inform.arguments[0], decode(float, inform.arguments[1])
            except (ValueError, IndexError) as exc:
                self._link.log.nonsense(inform, exc)
                continue
            if 0 < hint < math.inf:  # 0: there is none
                timeouts[name] = hint
        self._link.pending.timeouts = timeouts
