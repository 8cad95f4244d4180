"""A controller in the style of gen.coroutine: keeps a receiver cold, and says so when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from tornado import gen

from katcp_tornado import Client, FailReply, KatcpError, Reading

logger = logging.getLogger(__name__)


class Cooler:
    """Switches the cooler of a device on above one temperature, and off below another."""

    def __init__(self, client: Client, on_above: float, off_below: float) -> None:
        self.client = client
        self.on_above = on_above
        self.off_below = off_below
        self.cooling: bool | None = None  # not known, after each connect
        client.add_connected_callback(self.forget)
        client.subscribe("temperature", self.on_reading, strategy="event")

    def forget(self) -> None:
        """The device may have restarted: what it does now is not known."""
        self.cooling = None

    def on_reading(self, reading: Reading) -> Any:
        if not reading.status.valid_value:  # UNREACHABLE, for one
            return None
        if reading.value > self.on_above and self.cooling is not True:
            return self.switch(True)
        if reading.value < self.off_below and self.cooling is not False:
            return self.switch(False)
        return None

    @gen.coroutine
    def switch(self, on: bool) -> Generator[Any, Any, None]:
        self.cooling = on
        try:
            yield self.client.request("cooler", on, timeout=5)
        except FailReply as exc:
            logger.error("the device does not switch its cooler: %s", exc)
            self.cooling = None  # the next reading tries again
        except KatcpError as exc:  # lost, or too late: it may have been executed; to switch twice does no harm
            logger.warning("the cooler: %s", exc)
            self.cooling = None
