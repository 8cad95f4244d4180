"""Output of readings and messages: as text for people, as JSON, as lines of KATCP."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import time
from typing import Any, NamedTuple, Optional

from .. import Message, Reading, SensorInfo
from ..device_logs import level_of

#: The colours of statuses, as rich names them.
STYLES = {"nominal": "green", "warn": "yellow", "error": "red", "failure": "red", "unreachable": "bright_black"}


def printable(text: str) -> str:
    """The text with all that is not printable escaped: it may come from a device, and is to reach a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def as_json(thing: dict[str, Any]) -> str:
    """One JSON object on a line."""
    return json.dumps(thing, allow_nan=False)


def value_text(reading: Optional[Reading]) -> str:
    """The value of a reading for people; empty if there is none."""
    if reading is None or reading.value is None:
        return ""
    return printable(str(reading.plain()["value"]))


def sensor_json(info: SensorInfo, reading: Optional[Reading]) -> dict[str, Any]:
    """The keys that ``sensors --json`` promises."""
    plain = {"status": None, "value": None, "timestamp": None} if reading is None else reading.plain()
    return {
        "name": info.name,
        "type": info.type_name,
        "units": info.units,
        "description": info.description,
        "params": [param.decode("utf-8", "backslashreplace") for param in info.params],
        "status": plain["status"],
        "value": plain["value"],
        "timestamp": plain["timestamp"],
    }


def sensor_line(info: SensorInfo, reading: Optional[Reading]) -> str:
    """A sensor on a line, its parts between tabs: name, status, value, units."""
    status = "unknown" if reading is None else reading.status.value
    return "\t".join([printable(info.name), status, value_text(reading), printable(info.units)])


def message_text(message: Message) -> str:
    """A message for people: the arguments readable, on one line."""
    arguments = [printable(argument.decode("utf-8", "backslashreplace")) for argument in message.arguments]
    mark = {"REQUEST": "?", "REPLY": "!", "INFORM": "#"}[message.mtype.name]
    return " ".join([f"{mark}{message.name}", *arguments])


def message_json(message: Message) -> dict[str, Any]:
    """A message as JSON: its type, name and arguments."""
    return {
        "type": message.mtype.name.lower(),
        "name": message.name,
        "arguments": [argument.decode("utf-8", "backslashreplace") for argument in message.arguments],
    }


def age(timestamp: float) -> str:
    """Age of a reading, for people."""
    seconds = time.time() - timestamp
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


class LogLine(NamedTuple):
    """A ``#log`` [section 6]; the fields are the keys that ``log --json`` promises."""

    level: str
    #: In seconds since the Unix epoch; None if it cannot be read.
    timestamp: Optional[float]
    name: str
    message: str

    @classmethod
    def of(cls, inform: Message) -> LogLine:
        """That of an inform. Parts that it does not have are empty."""
        parts = [argument.decode("utf-8", "backslashreplace") for argument in inform.arguments]
        level, when, name, *text = [*parts, "", "", ""][: max(3, len(parts))]
        return cls(level, _seconds(when), name, " ".join(part for part in text if part))

    def text(self) -> str:
        """The line for people, escaped."""
        try:
            when = dt.datetime.fromtimestamp(self.timestamp, dt.timezone.utc)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, OSError):
            shown = "-"
        else:
            shown = when.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
        return printable(f"{shown} {self.level:5} {self.name}: {self.message}")


def _seconds(text: str) -> Optional[float]:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):  # JSON has none
        return None
    return number if abs(number) < 1e11 else number / 1000.0  # v4: milliseconds


def log_colour(level: str) -> Optional[str]:
    """The colour of a line of the log, as click names it; None for the ordinary one."""
    number = level_of(level)
    if number >= logging.ERROR:
        return "red"
    if number >= logging.WARNING:
        return "yellow"
    return None if number >= logging.INFO else "bright_black"
