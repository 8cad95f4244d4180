"""Log of the device, handed to Python's `logging` [section 6]."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Callable, Optional

from .errors import as_text, one_line
from .wire.message import Message
from .wire.values import Timestamp, decode

if TYPE_CHECKING:
    from .client import Client

#: From the level of a ``#log`` to that of `logging`: those of the guidelines, and what devices say besides.
LEVELS = {
    "fatal": logging.CRITICAL,
    "critical": logging.CRITICAL,
    "emergency": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": 5,
    "all": 1,
}
#: A time that no device has, in seconds since the Unix epoch: the year 9999. It could not be shown.
FUTURE = 253_370_764_800.0


def level_of(word: str) -> int:
    """The level of `logging` that a device's word means; INFO for one that is not known."""
    return LEVELS.get(word.strip().lower(), logging.INFO)


def forward_logs(client: Client, logger: logging.Logger) -> Callable[..., None]:
    """Hand every ``#log`` of the device of *client* to *logger*, with the device's own time and level.

    The name of a record is that of *logger*, a dot, and the name that the device gives; its text is one line, in which
    what is not printable is escaped. No line is lost: one without a readable time has that of its arrival, missing
    parts are empty, and a level that is not known is INFO. ``trace`` becomes level 5.

    Returns the callback, for `.Client.remove_inform_callback`: ``client.remove_inform_callback("log", callback)``.
    """
    if not isinstance(logger, logging.Logger):
        raise TypeError(f"logger must be a logging.Logger, not {type(logger).__name__}")

    def forward(inform: Message) -> None:
        level, when, name, *message = (*inform.arguments, b"", b"", b"")[: max(3, len(inform.arguments))]
        number = level_of(as_text(level))
        if not logger.isEnabledFor(number):
            return
        source = f"{logger.name}.{one_line(as_text(name))}"
        shown = one_line(as_text(b" ".join(message)))
        record = logger.makeRecord(source, number, "(device)", 0, shown, (), None)
        seconds = _seconds(when, 5 if client.protocol is None else client.protocol.major)
        if seconds is not None:
            record.created = seconds
            record.msecs = seconds % 1.0 * 1000.0
        logger.handle(record)

    client.add_inform_callback("log", forward)
    return forward


def _seconds(raw: bytes, major: int) -> Optional[float]:
    """The time of a line; None if it cannot be read or shown."""
    try:
        seconds = float(decode(Timestamp, raw, major))
    except ValueError:
        return None
    return seconds if 0 <= seconds < FUTURE else None
