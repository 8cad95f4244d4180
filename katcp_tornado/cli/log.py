"""``katcp-tornado log``: the log of a device."""

from __future__ import annotations

import asyncio
import os
from typing import Optional

import click

from .. import KatcpError, Message
from ..device_logs import level_of
from ..errors import describe
from . import show
from .sensors import failed, tell_gaps
from .targets import Target
from .terminal import ExitCode, Output, complain


async def log(
    target: Target, level: str, set_level: Optional[str], json: bool, raw: bool, timeout: float, output: Output
) -> ExitCode:
    """Write the ``#log`` of a device, through all that happens to the link."""
    least = level_of(level)
    colours = output.isatty() and not os.environ.get("NO_COLOR")

    def on_log(message: Message) -> None:
        line = show.LogLine.of(message)
        if level_of(line.level) < least:
            return
        if json:
            output.line(show.as_json(line._asdict()))
        elif raw:
            output.line(str(message))
        elif colours:
            output.line(click.style(line.text(), fg=show.log_colour(line.level)))
        else:
            output.line(line.text())

    async with target.client() as client:
        client.add_inform_callback("log", on_log)
        tell_gaps(client, target)

        async def ask_again() -> None:
            try:
                await client.request("log-level", set_level, timeout=timeout)
            except KatcpError as exc:
                complain(f"{target.address}: {describe(exc)}")

        try:
            await client.wait_connected(timeout)
            if set_level is not None:
                await client.request("log-level", set_level, timeout=timeout)
                client.add_connected_callback(ask_again)  # a device that was started again has forgotten it
        except KatcpError as exc:
            return failed(target, client, exc)
        await asyncio.get_running_loop().create_future()
    return ExitCode.OK
