"""What the device logs, handed to Python's `logging` [section 6]."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Callable

from .errors import one_line
from .sensor_types import text
from .values import Timestamp

if TYPE_CHECKING:
    from .client import Client

#: From the level of a ``#log`` to that of `logging`.
LEVELS = {
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": 5,
    "all": 1,
}
#: A time that no device has, in seconds since the Unix epoch: the year 9999. It could not be shown.
FUTURE = 253_370_764_800.0


def forward_logs(client: Client, logger: logging.Logger) -> Callable[..., None]:
    """Hand every ``#log`` of the device of *client* to *logger*, with the device's own time and level.

    The name of a record is that of *logger*, a dot, and the name that the device gives; its text is one line, in which
    what is not printable is escaped. ``trace`` becomes level 5; a level that is not of the guidelines, INFO.

    Returns the callback, for `.Client.remove_inform_callback`: ``client.remove_inform_callback("log", callback)``.
    """
    if not isinstance(logger, logging.Logger):
        raise TypeError(f"logger must be a logging.Logger, not {type(logger).__name__}")

    def forward(level: str, timestamp: Timestamp, name: bytes, *message: bytes) -> None:
        number = LEVELS.get(level, logging.INFO)
        if not logger.isEnabledFor(number):
            return
        source = f"{logger.name}.{one_line(text(name))}"
        shown = one_line(text(b" ".join(message)))
        record = logger.makeRecord(source, number, "(device)", 0, shown, (), None)
        if 0 <= timestamp < FUTURE:
            record.created = float(timestamp)
            record.msecs = timestamp % 1.0 * 1000.0
        logger.handle(record)

    client.add_inform_callback("log", forward)
    return forward
