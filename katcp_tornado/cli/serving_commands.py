"""The commands that serve others: record, replay, export and web."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any, Optional

import click

from .options import find_target, listen_option, parse_seconds, target_options
from .targets import HostPort, Target, find
from .terminal import run_checked


@click.command()
@listen_option("127.0.0.1:0")
@target_options
@click.argument("address", callback=find_target, metavar="DEVICE")
@click.argument("file", type=click.Path(dir_okay=False))
def record(address: HostPort, file: str, listen: HostPort, options: dict[str, Any]) -> None:
    """Write the conversations of clients with a device to a new FILE.

    It stands between them, and listens for the clients. `replay` plays the device again.

    A recording contains all that is said, passwords included: look at it before you give it away.

    \b
    Examples:
      katcp-tornado record m000 fault.jsonl --listen 7148
    """
    from .recording import record

    run_checked(partial(record, Target(address, options), file, listen))


@click.command()
@listen_option("127.0.0.1:0")
@click.option("--speed", type=click.FloatRange(min=0.0, min_open=True), default=1.0, show_default=True, metavar="X")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def replay(file: str, listen: HostPort, speed: float) -> None:
    """Play the device of a recording to any client.

    It answers by name and arguments, with the client's own ids.

    \b
    Examples:
      katcp-tornado replay fault.jsonl --listen 7147 --speed 10
    """
    from .recording import replay

    run_checked(partial(replay, file, listen, speed))


@click.command()
@listen_option("127.0.0.1:10747")
@click.option("--allow", multiple=True, metavar="REGEX", help="Targets that may be probed.")
@click.option(
    "--idle",
    metavar="SECONDS",
    default="300",
    callback=parse_seconds,
    show_default=True,
    help="Keep clients so long.",
)
@target_options
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
def export(
    devices: tuple[str, ...], listen: HostPort, allow: tuple[str, ...], idle: float, options: dict[str, Any]
) -> None:
    """Serve the metrics of devices for Prometheus.

    /metrics has those of the devices named here, /probe?target=DEVICE of any that is allowed. A target is allowed if
    --allow fits it as a whole; without it, those named here are. Needs the extra metrics.

    \b
    Examples:
      katcp-tornado export m000 m001
      katcp-tornado export --listen 0.0.0.0:10747 --allow "10[.]0[.]0[.].*:7147"
    """
    try:
        from .export import export
    except ModuleNotFoundError as exc:
        how = 'install it with: pip install "katcp_tornado[metrics]"'
        raise click.UsageError(f"{exc.name} is not installed; {how}") from exc
    targets = _targets(devices, options)
    try:
        for pattern in allow:
            re.compile(pattern)
    except re.error as exc:
        raise click.UsageError(str(exc)) from None
    if not targets and not allow:
        raise click.UsageError("name devices, or allow targets with --allow")
    run_checked(lambda output: export(targets, options, allow, idle, listen))


@click.command()
@listen_option("127.0.0.1:8080")
@click.option("--allow-requests", is_flag=True, help="Let whoever sees the page send requests.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Allow this origin, too: that of a proxy.")
@click.option("--token-file", metavar="FILE", help="Ask for the token that stands in this file.")
@target_options
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
def web(
    devices: tuple[str, ...],
    listen: HostPort,
    allow_requests: bool,
    origins: tuple[str, ...],
    token_file: Optional[str],
    options: dict[str, Any],
) -> None:
    """Serve a live page of devices: connection, sensors, log.

    It is for a browser on this machine unless --listen says otherwise; then, have it ask for a token. Behind a proxy,
    name the origin that browsers see.

    \b
    Examples:
      katcp-tornado web m000 m001
      katcp-tornado web m000 --listen 0.0.0.0:8080 --token-file token.txt
      katcp-tornado web m000 --origin https://control.example.org
    """
    from .web import web

    targets = _targets(devices or (None,), options)
    run_checked(
        lambda output: web(targets, listen, allow_requests=allow_requests, origins=origins, token_file=token_file)
    )


def _targets(devices: Iterable[Optional[str]], options: dict[str, Any]) -> dict[str, Target]:
    """The devices of a command line, by the names that they have there."""
    try:
        found = [(device, find(device)) for device in devices]
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    return {device or str(address): Target(address, options) for device, address in found}
