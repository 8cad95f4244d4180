"""The requests that a `.FakeDevice` has from the start: those of the guidelines, and a few that tests want."""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

from tornado.concurrent import Future

from ..wire.message import Message
from ..wire.values import decode
from .handlers import Fail, Handler, RequestContext, RequestEntry
from .sensors import FakeSensor, make_sampler

LOG_LEVELS = ("off", "fatal", "error", "warn", "info", "debug", "trace", "all")

#: The entries that every device starts with, by name.
STANDARD: dict[str, RequestEntry] = {}


def _standard(name: str, needs: str = "") -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        STANDARD[name] = RequestEntry(handler, (handler.__doc__ or "").partition("\n")[0], needs)
        return handler

    return register


def _texts(message: Message, least: int, most: Optional[int]) -> list[str]:
    """The arguments as text. Raises `Fail` if there are too few or too many."""
    count = len(message.arguments)
    if count < least:
        raise Fail(f"missing a required argument of {message.name}")
    if most is not None and count > most:
        raise Fail(f"too many arguments for {message.name}")
    return [argument.decode("utf-8", "surrogateescape") for argument in message.arguments]


def _number(type: Any, raw: bytes) -> Any:
    try:
        return decode(type, raw)
    except ValueError as exc:
        raise Fail(str(exc)) from None


@_standard("help")
def _help(context: RequestContext, message: Message) -> tuple[int]:
    """List the requests: ?help [name]"""
    names = _texts(message, 0, 1) or context.device.request_names(context.connection)
    entries = [(name, context.device.find_request(context.connection, name)) for name in names]
    for name, entry in entries:
        if entry is None:
            raise Fail(f"request {name} is not known")
        context.inform(name, entry.description)
    return (len(entries),)


@_standard("halt")
def _halt(context: RequestContext, message: Message) -> None:
    """Stop the device."""
    _texts(message, 0, 0)
    context.device.io_loop.add_callback(context.device.stop, reason="the device halts")


@_standard("restart")
def _restart(context: RequestContext, message: Message) -> None:
    """Restart the device: every connection is closed, and new ones are welcome at once."""
    _texts(message, 0, 0)
    context.device.io_loop.add_callback(context.device.drop_all, reason="the device restarts")


@_standard("watchdog")
def _watchdog(context: RequestContext, message: Message) -> None:
    """Show that the device is alive."""
    _texts(message, 0, 0)


@_standard("version-list", needs="5")
def _version_list(context: RequestContext, message: Message) -> tuple[int]:
    """List the versions of the device and its parts."""
    _texts(message, 0, 0)
    versions = context.device.version_list(context.connection)
    for version in versions:
        context.inform(*version)
    return (len(versions),)


@_standard("client-list", needs="M")
def _client_list(context: RequestContext, message: Message) -> tuple[int]:
    """List the clients."""
    _texts(message, 0, 0)
    for connection in context.device.connections:
        context.inform(connection.address)
    return (len(context.device.connections),)


@_standard("log-level")
def _log_level(context: RequestContext, message: Message) -> tuple[str]:
    """Get or set the level of the log: ?log-level [level]"""
    for level in _texts(message, 0, 1):
        if level not in LOG_LEVELS:
            raise Fail(f"Unknown logging level {level!r}")
        context.device.log_level = level
    return (context.device.log_level,)


@_standard("request-timeout-hint", needs="T")
def _request_timeout_hint(context: RequestContext, message: Message) -> tuple[int]:
    """Tell how long requests may take, in seconds: ?request-timeout-hint [name]"""
    device = context.device
    names = _texts(message, 0, 1)
    for name in names:
        if device.find_request(context.connection, name) is None:
            raise Fail(f"request {name} is not known")
    names = names or sorted(device.timeout_hints)
    for name in names:
        context.inform(name, float(device.timeout_hints.get(name, 0.0)))
    return (len(names),)


# Sensors


def _choose(context: RequestContext, message: Message) -> list[FakeSensor]:
    """The sensors of a name, a /regular expression/ or no argument at all."""
    sensors = sorted(context.device.sensors.items())
    for name in _texts(message, 0, 1):
        if len(name) >= 2 and name.startswith("/") and name.endswith("/"):
            try:
                pattern = re.compile(name[1:-1])
            except re.error as exc:
                raise Fail(str(exc)) from None
            sensors = [item for item in sensors if pattern.search(item[0])]
        else:
            sensors = [(name, _sensor(context, name))]
    return [sensor for _, sensor in sensors]


def _sensor(context: RequestContext, name: str) -> FakeSensor:
    try:
        return context.device.sensors[name]
    except KeyError:
        raise Fail(f"Unknown sensor {name!r}") from None


@_standard("sensor-list")
def _sensor_list(context: RequestContext, message: Message) -> tuple[int]:
    """List the sensors: ?sensor-list [name or /regular expression/]"""
    sensors = _choose(context, message)
    for sensor in sensors:
        context.inform(*sensor.description_arguments())
    return (len(sensors),)


@_standard("sensor-value")
def _sensor_value(context: RequestContext, message: Message) -> tuple[int]:
    """List the values of sensors: ?sensor-value [name or /regular expression/]"""
    sensors = _choose(context, message)
    for sensor in sensors:
        context.inform(*sensor.reading_arguments(context.major))
    return (len(sensors),)


@_standard("sensor-sampling")
def _sensor_sampling(context: RequestContext, message: Message) -> tuple[Any, ...]:
    """Get or set the strategy of a sensor: ?sensor-sampling name [strategy [parameters]]"""
    connection = context.connection
    texts = _texts(message, 1, None)
    if len(texts) == 1:
        current = connection.samplers.get(_sensor(context, texts[0]).name)
        return (texts[0], "none") if current is None else (texts[0], current.strategy, *current.arguments)
    names = texts[0].split(",") if "B" in connection.protocol.flags else texts[:1]
    if len(set(names)) != len(names):
        raise Fail("Duplicate sensor name")
    sensors = [_sensor(context, name) for name in names]
    samplers = [make_sampler(connection, sensor, texts[1], message.arguments[2:]) for sensor in sensors]
    for sensor, sampler in zip(sensors, samplers):  # nothing can fail any more
        old = connection.samplers.pop(sensor.name, None)
        if old is not None:
            old.cancel()
        if sampler is not None:
            connection.samplers[sensor.name] = sampler
            sampler.start()
    return tuple(message.arguments)


# What tests want


@_standard("echo")
def _echo(context: RequestContext, message: Message) -> list[bytes]:
    """Return the arguments: ?echo [argument ...]"""
    return message.arguments


@_standard("fail")
def _fail(context: RequestContext, message: Message) -> None:
    """Fail: ?fail [message ...]"""
    raise Fail(*message.arguments)


@_standard("add")
def _add(context: RequestContext, message: Message) -> tuple[Any]:
    """Add two numbers: ?add a b"""
    _texts(message, 2, 2)
    a, b = (_parse_number(raw) for raw in message.arguments)
    return (a + b,)


def _parse_number(raw: bytes) -> Any:
    try:
        return decode(int, raw)
    except ValueError:
        return _number(float, raw)


@_standard("informs")
def _informs(context: RequestContext, message: Message) -> tuple[int]:
    """Send informs, numbered from 0: ?informs count"""
    _texts(message, 1, 1)
    count: int = _number(int, message.arguments[0])
    for i in range(count):
        context.inform(i)
    return (count,)


@_standard("sleep")
def _sleep(context: RequestContext, message: Message) -> Future[None]:
    """Reply after some seconds: ?sleep seconds"""
    _texts(message, 1, 1)
    future: Future[None] = context.device.make_future()
    context.connection.call_later(_number(float, message.arguments[0]), _wake, future)
    return future


def _wake(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
