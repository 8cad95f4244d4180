"""The command line: what can be asked for, and how it is spelled.

What the commands do stands in the module of the same name, which is imported when it is needed.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Optional, Union

import click

from .. import Message, __version__
from .options import find_target, json_option, parse_seconds, raw_option, target_options, timeout_option
from .serving_commands import export, record, replay, web
from .targets import HostPort, Target
from .terminal import run, run_checked


def _check_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value == "-":
        return value
    try:
        Message.request(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 77})
@click.version_option(__version__, message="%(prog)s %(version)s")
def katcp_tornado() -> None:
    """Talk to KATCP devices: ask, watch, measure, record.

    A DEVICE is HOST[:PORT] or [V6][:PORT], the port 7147 by default, or a name of
    the [devices] in katcp-tornado.toml in the user's configuration folder, or - for
    that of the environment variable KATCP_SERVER. Where nothing follows it, it may
    be left out for the same.

    \b
    Examples:
      katcp-tornado request 192.168.1.10:7147 help
      katcp-tornado sensors 192.168.1.10 --watch
      katcp-tornado shell 192.168.1.10
      katcp-tornado demo

    \b
    Exit codes:
      0    done
      1    the device said fail or invalid
      2    the command line makes no sense
      3    never connected (in time), or the link was lost
      4    connected, but no answer in time
      130  interrupted
      141  nobody reads the output
      143  terminated (SIGTERM)
      143  ended by SIGTERM
    """


@katcp_tornado.command(context_settings={"ignore_unknown_options": True})
@timeout_option("30", "One deadline for everything: the connection and the reply; inf for none.")
@raw_option
@json_option
@click.option("--fail-fast", is_flag=True, help="With -: send no more once one was refused.")
@click.option("--log", metavar="LEVEL", help="Show the device's #log from this level on, on the standard error.")
@target_options
@click.argument("address", callback=find_target, metavar="DEVICE")
@click.argument("name", callback=_check_name)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def request(
    address: HostPort,
    name: str,
    arguments: tuple[Union[str, bytes], ...],
    timeout: float,
    raw: bool,
    json: bool,
    fail_fast: bool,
    log: Optional[str],
    options: dict[str, Any],
) -> None:
    """Send one request to a device, or several from the standard input (-).

    Prints the informs, as they come, and the reply. A request is sent once, or not at all. With -, each line of the
    standard input is a name and its arguments, as KATCP spells them; all are sent, and the exit code is that of the
    first that was refused.

    \b
    Examples:
      katcp-tornado request 192.168.1.10:7147 help
      katcp-tornado request [::1]:7147 sensor-value temperature
      katcp-tornado request device.example.org add 3 -4.5
      katcp-tornado request --timeout 2 localhost watchdog
      katcp-tornado request localhost:7147 echo -- --timeout --help
      katcp-tornado request m000 - < requests.txt

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
    from .request import How, ask, from_stdin

    if name == "-" and arguments:
        raise click.UsageError("with -, the requests come from the standard input")
    requests = from_stdin() if name == "-" else [(name, [os.fsencode(argument) for argument in arguments])]
    how = How(timeout, raw, json, fail_fast, log)
    run_checked(partial(ask, Target(address, options), requests, how))


@katcp_tornado.command()
@timeout_option("30", "For the connection, and for the answer.")
@json_option
@click.option("--value", is_flag=True, help="Write bare values.")
@raw_option
@click.option("--watch", is_flag=True, help="Follow the sensors, through reconnections.")
@click.option("--strategy", metavar="TEXT", default="auto", show_default=True, help='With --watch: such as "period 1".')
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="With --watch: end after so many updates.")
@target_options
@click.argument("address", callback=find_target, metavar="[DEVICE]", required=False)
@click.argument("names", nargs=-1, metavar="[NAME | /REGEX/]...")
def sensors(
    address: HostPort,
    names: tuple[str, ...],
    timeout: float,
    json: bool,
    value: bool,
    raw: bool,
    watch: bool,
    strategy: str,
    count: Optional[int],
    options: dict[str, Any],
) -> None:
    """Show sensors and what they say.

    On a terminal that is a table, otherwise a line for each: name, status, value and units, with tabs between them.
    With --json, each line is an object of name, type, units, description, params, status, value and timestamp.

    With --watch, a terminal shows them live: / filters by name, s sorts, q quits; while the device is away, the last
    values are grey. Off a terminal, and with --count, --json, --raw or --value, there is a line for each update.

    \b
    Examples:
      katcp-tornado sensors 192.168.1.10
      katcp-tornado sensors m000 temperature /^antenna/ --json
      katcp-tornado sensors m000 temperature --value
      katcp-tornado sensors m000 --watch --strategy "period 1" --count 60
    """
    from .sensors import How, follow, sensors

    word, *params = strategy.split() or [""]
    how = How(json, value, word, tuple(params), count, raw)
    show = follow if watch or count is not None else sensors
    run_checked(partial(show, Target(address, options), names, how, timeout))


@katcp_tornado.command(context_settings={"ignore_unknown_options": True})
@timeout_option("inf", "How long to wait.")
@json_option
@target_options
@click.argument("address", callback=find_target, metavar="DEVICE")
@click.argument("sensor")
@click.argument("value")
def wait(address: HostPort, sensor: str, value: str, timeout: float, json: bool, options: dict[str, Any]) -> None:
    """Wait until a sensor has a valid value.

    It is the one given or, after >, <, >=, <= or !=, any that compares so with a number. With --json, the reading is
    written, an object of name, status, value and timestamp.

    \b
    Examples:
      katcp-tornado wait m000 mode ready --timeout 60
      katcp-tornado wait m000 temperature "<20.5"

    \b
    Exit codes:
      0    it has the value
      1    the device has no such sensor
      3    never connected (in time)
      4    not in time
    """
    from .sensors import wait

    run_checked(partial(wait, Target(address, options), sensor, value, timeout, json=json))


@katcp_tornado.command()
@timeout_option("30", "For the connection, and for each reply.")
@raw_option
@target_options
@click.argument("address", callback=find_target, metavar="[DEVICE]", required=False)
def shell(address: HostPort, timeout: float, raw: bool, options: dict[str, Any]) -> None:
    """Talk to a device at a prompt.

    Tab completes requests, with the device's help beside them, and sensors. NAME? or help NAME shows the help.
    A request is typed as words; quotes keep spaces in one. A line that begins with ? goes as typed, in the spelling
    of KATCP, and its answers are shown as they came. Ctrl-C gives up the request in flight, Ctrl-D leaves.

    \b
    Examples:
      katcp-tornado shell m000
      katcp-tornado shell 192.168.1.10:7147 --timeout 120
    """
    from .shell import shell

    run_checked(partial(shell, Target(address, options), timeout, raw))


@katcp_tornado.command()
@timeout_option("30", "For the first connection.")
@json_option
@raw_option
@click.option("--level", metavar="LEVEL", default="all", show_default=True, help="Show lines from this level on.")
@click.option("--set-level", metavar="LEVEL", help="Ask the device for this level, with ?log-level.")
@target_options
@click.argument("address", callback=find_target, metavar="[DEVICE]", required=False)
def log(
    address: HostPort,
    level: str,
    set_level: Optional[str],
    timeout: float,
    json: bool,
    raw: bool,
    options: dict[str, Any],
) -> None:
    """Follow the log of a device, with its own times.

    Gaps of the link are told on the standard error. With --json, each line is an object of level, timestamp, name and
    message.

    \b
    Examples:
      katcp-tornado log m000 --level warn
      katcp-tornado log m000 --set-level debug --json
    """
    from .log import log

    run_checked(partial(log, Target(address, options), level, set_level, json, raw, timeout))


@katcp_tornado.command()
@timeout_option("5", "For the connection, and for each answer.")
@json_option
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="End after so many.")
@click.option(
    "-i", "--interval", metavar="SECONDS", default="1", callback=parse_seconds, show_default=True, help="Between them."
)
@target_options
@click.argument("address", callback=find_target, metavar="[DEVICE]", required=False)
def ping(
    address: HostPort, count: Optional[int], interval: float, timeout: float, json: bool, options: dict[str, Any]
) -> None:
    """Measure round trips of ?watchdog.

    At the end it tells sent, answered, lost, min, median, p99 and max.

    \b
    Examples:
      katcp-tornado ping m000 -c 10 -i 0.1
      katcp-tornado ping 192.168.1.10 --json

    \b
    Exit codes:
      0    all were answered
      3    never connected, or the link was lost before an answer
      4    not all were answered
    """
    from .ping import ping

    run_checked(partial(ping, Target(address, options), count, interval, json, timeout))


@katcp_tornado.command()
def demo() -> None:
    """Watch a client lose its device, and find it again.

    Starts a device on this machine, in a process of its own, and a client that follows a sensor; kills the device,
    starts it again, and shows what the client tells of it. Takes about five seconds.

    \b
    Examples:
      katcp-tornado demo
      katcp-tornado demo | cat          in plain text
      NO_COLOR=1 katcp-tornado demo     without colours

    The exit code is 0 if everything happened as it should, otherwise 1, and the last line says what did not.
    """
    from .demo import demonstrate

    run(demonstrate)


for _command in (record, replay, export, web):
    katcp_tornado.add_command(_command)
