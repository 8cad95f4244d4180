"""``katcp-tornado ping``: round trips of ``?watchdog``."""

from __future__ import annotations

import asyncio
import statistics
from typing import Optional

from .. import KatcpError
from ..errors import describe
from . import show
from .sensors import failed
from .targets import Target
from .terminal import ExitCode, Output


async def ping(
    target: Target, count: Optional[int], interval: float, json: bool, timeout: float, output: Output
) -> ExitCode:
    """Measure round trips, then sum them up. OK if all were answered, in whatever words."""
    times: list[float] = []
    sent = 0
    loop = asyncio.get_running_loop()
    async with target.client() as client:
        try:
            await client.wait_connected(timeout)
        except KatcpError as exc:
            return failed(target, client, exc)
        try:
            while count is None or sent < count:
                if sent:
                    await asyncio.sleep(interval)
                sent += 1
                began = loop.time()
                try:
                    await client.request_raw("watchdog", timeout=timeout)
                except KatcpError as exc:
                    _line(output, json, sent, None, describe(exc))
                else:
                    times.append(loop.time() - began)
                    _line(output, json, sent, times[-1], "")
        except asyncio.CancelledError:  # Ctrl-C: sum up what there is
            _summary(output, json, sent, times, client.stats.connects - 1)
            raise
        _summary(output, json, sent, times, client.stats.connects - 1)
        if len(times) == sent:
            return ExitCode.OK
        return ExitCode.NO_CONNECTION if client.stats.disconnects else ExitCode.TIMEOUT


def _line(output: Output, json: bool, number: int, seconds: Optional[float], error: str) -> None:
    if json:
        output.line(show.as_json({"number": number, "seconds": seconds, "error": error or None}))
    else:
        output.line(f"{number}: {f'{seconds * 1e3:.3f} ms' if seconds is not None else show.printable(error)}")


def _summary(output: Output, json: bool, sent: int, times: list[float], reconnects: int) -> None:
    figures = dict.fromkeys(("min", "median", "p99", "max"))
    if times:
        ordered = sorted(times)
        rank = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
        figures = dict(zip(figures, (ordered[0], statistics.median(ordered), rank, ordered[-1])))
    counts = {"sent": sent, "answered": len(times), "lost": sent - len(times), "reconnects": reconnects}
    if json:
        output.line(show.as_json({**counts, **figures}))
        return
    output.line(", ".join(f"{count} {name}" for name, count in counts.items()))
    if times:
        output.line(", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in figures.items() if seconds))
