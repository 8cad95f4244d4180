"""The options and arguments that several commands have."""

from __future__ import annotations

import functools
import logging
import math
from typing import Any, Callable, Optional, TypeVar

import click

from .targets import HostPort, client_options, find
from .terminal import complain


def find_target(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> HostPort:
    if value is not None and value.startswith("-") and value != "-":
        raise click.NoSuchOption(value)
    try:
        return find(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _parse_listen(ctx: click.Context, param: click.Parameter, value: str) -> HostPort:
    """``[HOST:]PORT``, or ``HOST`` with the default port; the port 0 stands for any that is free."""
    default_host, _, default_port = str(param.default).rpartition(":")
    if value.isascii() and value.isdigit():
        value = f"{default_host}:{value}"
    host, colon, port = value.rpartition(":")
    if not colon or "]" in port:
        host, port = value, default_port
    try:
        if port and not port.strip("0"):
            return HostPort(HostPort.parse(host).host, 0)
        return HostPort.parse(f"{host}:{port}")
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def parse_seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise click.BadParameter(f"{value!r} is not a number of seconds that is more than 0")
    return seconds


class _ToStderr(logging.Handler):
    """Writes to the standard error as it is at the time: above the prompt of a shell, not into a screen."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


C = TypeVar("C", bound=Callable[..., Any])


def target_options(command: C) -> C:
    """A decorator: the options that all commands have that talk to a device, collected as the argument *how*."""

    @functools.wraps(command)
    def collected(
        *args: Any,
        tls: bool,
        ca: Optional[str],
        insecure: bool,
        assume_protocol: Optional[str],
        verbose: bool,
        **kwargs: Any,
    ) -> Any:
        logger = logging.getLogger("katcp_tornado")
        if verbose:
            logger.setLevel(logging.INFO)
            logger.addHandler(_ToStderr())
        else:
            logger.addHandler(logging.NullHandler())  # the commands say themselves what goes wrong
        try:
            kwargs["options"] = client_options(tls=tls, ca=ca, insecure=insecure, assume_protocol=assume_protocol)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None
        return command(*args, **kwargs)

    for decorate in (
        click.option("-v", "verbose", is_flag=True, help="Show the library's own log on the standard error."),
        click.option("--assume-protocol", metavar="FLAGS", help="Take the device for one that speaks this: 5.0-M."),
        click.option("--insecure", is_flag=True, help="TLS without a look at the device's certificate."),
        click.option("--ca", metavar="FILE", help="TLS, with the certificates of this file as authorities."),
        click.option("--tls", is_flag=True, help="Speak TLS."),
    ):
        collected = decorate(collected)
    return collected  # type: ignore[return-value]


def json_option(command: C) -> C:
    """A decorator: the option ``--json``."""
    return click.option("--json", is_flag=True, help="Write one JSON object on a line.")(command)


def raw_option(command: C) -> C:
    """A decorator: the option ``--raw``."""
    return click.option("--raw", is_flag=True, help="Write lines as on the wire.")(command)


def timeout_option(default: str, help: str) -> Callable[[C], C]:
    """A decorator: the option ``--timeout``."""
    return click.option(
        "--timeout", metavar="SECONDS", default=default, callback=parse_seconds, show_default=True, help=help
    )


def listen_option(default: str) -> Callable[[C], C]:
    """A decorator: the option ``--listen``, of loopback by default."""
    return click.option(
        "--listen",
        metavar="[HOST:]PORT",
        default=default,
        callback=_parse_listen,
        show_default=True,
        help="Where to listen.",
    )
