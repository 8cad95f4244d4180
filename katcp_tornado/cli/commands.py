"""The command line: what can be asked for, and how it is spelled.

What the commands do stands in the module of the same name, which is imported when it is needed.
"""

from __future__ import annotations

import logging
import math
import os
import re
from functools import partial
from typing import NamedTuple, Union

import click
import rich  # noqa: F401  # the demonstration needs it: say now, and not later, that it is not installed

from .. import Message, __version__
from .terminal import run


class HostPort(NamedTuple):
    """Where a device is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")


def _parse_address(ctx: click.Context, param: click.Parameter, value: str) -> HostPort:
    match = _ADDRESS.fullmatch(value)
    if match is None and value.startswith("-"):
        raise click.NoSuchOption(value)
    if match is None:
        raise click.BadParameter(
            f"{value!r}: expected HOST:PORT, such as 192.168.1.10:7147, device.example.org:7147 or [::1]:7147"
        )
    address = HostPort(match[1] or match[2], int(match[3]))
    if not 1 <= address.port <= 65535:
        raise click.BadParameter(f"{value!r}: the port must be between 1 and 65535")
    return address


def _parse_seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise click.BadParameter(f"{value!r} is not a number of seconds that is more than 0")
    return seconds


def _check_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        Message.request(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    return value


@click.group()
@click.version_option(__version__, message="%(prog)s %(version)s")
def katcp_tornado() -> None:
    """Talk to a KATCP device, or see what the library does.

    \b
    Examples:
      katcp-tornado request 192.168.1.10:7147 help
      katcp-tornado demo
    """


@katcp_tornado.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--timeout",
    metavar="SECONDS",
    default="30",
    callback=_parse_seconds,
    show_default=True,
    help="One deadline for everything: the connection and the reply; inf for none.",
)
@click.argument("address", callback=_parse_address, metavar="HOST:PORT")
@click.argument("name", callback=_check_name)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def request(address: HostPort, name: str, arguments: tuple[Union[str, bytes], ...], timeout: float) -> None:
    """Send one request to a device.

    Prints the informs, as they come, and the reply, each as a line of KATCP in which everything but printable ASCII
    is escaped. The request is sent once, or not at all.

    \b
    Examples:
      katcp-tornado request 192.168.1.10:7147 help
      katcp-tornado request [::1]:7147 sensor-value temperature
      katcp-tornado request device.example.org:7147 add 3 -4.5
      katcp-tornado request --timeout 2 localhost:7147 watchdog
      katcp-tornado request localhost:7147 echo -- --timeout --help

    An ARG that looks like one of our own options must follow a "--".

    \b
    Exit codes:
      0    ok
      1    the device said fail or invalid
      2    the command line makes no sense
      3    no connection, or it was lost before the reply
      4    timeout
      130  interrupted
    """
    from .request import ask

    logging.getLogger("katcp_tornado").addHandler(logging.NullHandler())  # `ask` says itself what goes wrong
    run(partial(ask, address, name, [os.fsencode(argument) for argument in arguments], timeout))


@katcp_tornado.command()
def demo() -> None:
    """Watch a client live through the loss of its device.

    Starts a device on this machine and a client of it, makes requests, follows a sensor, takes the device away,
    brings it back, and shows all that the client tells of it. Takes about 10 seconds.

    \b
    Examples:
      katcp-tornado demo
      katcp-tornado demo | cat          in plain text
      NO_COLOR=1 katcp-tornado demo     without colours

    The exit code is 0 if everything happened as it should, otherwise 1, and the last line says what did not.
    """
    from .demo import demonstrate

    run(demonstrate)
