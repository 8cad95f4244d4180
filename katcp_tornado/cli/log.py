"""``katcp-tornado log``: the log of a device."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from typing import Any, Optional

from .. import KatcpError, Message
from ..device_logs import level_of
from . import show
from .sensors import failed, tell_gaps
from .targets import Target
from .terminal import ExitCode, Output


async def log(
    target: Target, level: str, set_level: Optional[str], json: bool, timeout: Optional[float], output: Output
) -> ExitCode:
    """Write the ``#log`` of a device, through all that happens to the link."""
    least = level_of(level)

    def on_log(message: Message) -> None:
        parts = [argument.decode("utf-8", "backslashreplace") for argument in message.arguments]
        word, when, name, *text = [*parts, "", "", ""][: max(4, len(parts))]
        if level_of(word) < least:
            return
        shown = " ".join(part for part in text if part)
        if json:
            output.line(show.as_json({"level": word, "timestamp": _number(when), "name": name, "message": shown}))
        else:
            output.line(show.printable(f"{_time(when)} {word:5} {name}: {shown}"))

    async with target.client() as client:
        client.add_inform_callback("log", on_log)
        tell_gaps(client, target)
        try:
            await client.wait_connected(timeout)
            if set_level is not None:
                await client.request("log-level", set_level, timeout=timeout)
        except KatcpError as exc:
            return failed(target, client, exc)
        await asyncio.get_running_loop().create_future()
    return ExitCode.OK


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):  # JSON has none
        return None
    return number if abs(number) < 1e11 else number / 1000.0  # v4: milliseconds


def _time(text: str) -> str:
    number = _number(text)
    try:
        return dt.datetime.fromtimestamp(number, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"
