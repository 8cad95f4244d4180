"""What the device logs, in Python's own log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from katcp_tornado import Client, Timestamp, forward_logs
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

NOW = 1_600_000_000.0


@pytest.fixture
def logger() -> Any:
    logger = logging.Logger("devices.m000")  # noqa: LOG001  # one that nobody else has
    logger.setLevel(1)
    logger.records = []  # type: ignore[attr-defined]
    handler = logging.Handler()
    handler.emit = logger.records.append  # type: ignore[attr-defined, method-assign]
    logger.addHandler(handler)
    return logger


@pytest.fixture
def client(io_loop: VirtualTimeLoop, connect: Callable[..., Client], device: FakeDevice) -> Any:
    client = connect()
    io_loop.run_sync(client.wait_connected)
    return client


@pytest.fixture
def log(io_loop: VirtualTimeLoop, device: FakeDevice) -> Any:
    """``log(level, timestamp, name, *texts)`` has the device say so."""

    def log(*args: Any) -> None:
        device.inform_all("log", *args)
        io_loop.run_sync(io_loop.idle)

    return log


@pytest.mark.parametrize(
    ("level", "number"),
    [
        ("fatal", logging.CRITICAL),
        ("error", logging.ERROR),
        ("warn", logging.WARNING),
        ("info", logging.INFO),
        ("debug", logging.DEBUG),
        ("trace", 5),
        ("all", 1),
        ("loud", logging.INFO),
        ("off", logging.INFO),
    ],
)
def test_levels(client: Any, logger: Any, log: Any, level: str, number: Any) -> None:
    forward_logs(client, logger)
    log(level, Timestamp(NOW), "antenna", "something")
    (record,) = logger.records
    assert record.levelno == number


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_a_record(
    io_loop: VirtualTimeLoop, device: FakeDevice, connect: Callable[..., Client], logger: Any, log: Any, protocol: str
) -> None:
    device.protocol = protocol
    client = connect()
    io_loop.run_sync(client.wait_connected)
    forward_logs(client, logger)
    log("info", Timestamp(1234.75), "antenna.drive", "100% done")
    (record,) = logger.records
    assert record.name == "devices.m000.antenna.drive"
    assert record.getMessage() == "100% done"
    assert (record.created, record.msecs) == (1234.75, 750.0), "the device's own time"
    assert (record.args, record.exc_info) == ((), None)


def test_its_own_message(device: FakeDevice, client: Any, io_loop: VirtualTimeLoop, logger: Any) -> None:
    forward_logs(client, logger)
    device.log("error", "trouble")
    io_loop.run_sync(io_loop.idle)
    (record,) = logger.records
    assert (record.name, record.getMessage(), record.created) == ("devices.m000.fake-device", "trouble", NOW)


def test_what_is_not_printable_is_escaped(client: Any, logger: Any, log: Any) -> None:
    forward_logs(client, logger)
    log("info", Timestamp(NOW), b"a\nb", b"one\ntwo\xff\x1b[0m", "three")
    (record,) = logger.records
    assert record.name == "devices.m000.a\\nb"
    assert record.getMessage() == "one\\ntwo\\xff\\x1b[0m three"


def test_a_message_without_text(client: Any, logger: Any, log: Any) -> None:
    forward_logs(client, logger)
    log("info", Timestamp(NOW), "antenna")
    assert logger.records[0].getMessage() == ""


@pytest.mark.parametrize("timestamp", ["nan", "inf", "-inf", "1e300", "-1"])
def test_a_time_that_is_none(client: Any, logger: Any, log: Any, timestamp: str) -> None:
    forward_logs(client, logger)
    log("info", timestamp, "antenna", "x")
    (record,) = logger.records
    assert record.created > NOW, "then it is the time of this machine"
    assert logging.Formatter("%(asctime)s").format(record)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), (logging.INFO, "", "")),
        (("error",), (logging.ERROR, "", "")),
        (("ERROR", "now", "antenna", "x"), (logging.ERROR, "antenna", "x")),
        (("Warning", 1.0), (logging.WARNING, "", "")),
        (("critical", 1.0, "antenna", "x", "y"), (logging.CRITICAL, "antenna", "x y")),
        ((b"\xff", 1.0, b"\xff", b"\xff"), (logging.INFO, "\\xff", "\\xff")),
    ],
)
def test_no_line_is_lost(client: Any, logger: Any, log: Any, args: Any, told: Any) -> None:
    forward_logs(client, logger)
    log(*args)
    (record,) = logger.records
    assert (record.levelno, record.name.rpartition(".")[2], record.getMessage()) == told


def test_what_the_logger_does_not_want(client: Any, logger: Any, log: Any) -> None:
    logger.setLevel(logging.WARNING)
    forward_logs(client, logger)
    log("info", Timestamp(NOW), "antenna", "x")
    log("warn", Timestamp(NOW), "antenna", "y")
    assert [record.getMessage() for record in logger.records] == ["y"]


def test_filters_of_the_logger(client: Any, logger: Any, log: Any) -> None:
    logger.addFilter(lambda record: "keep" in record.getMessage())
    forward_logs(client, logger)
    log("info", Timestamp(NOW), "antenna", "keep")
    log("info", Timestamp(NOW), "antenna", "drop")
    assert [record.getMessage() for record in logger.records] == ["keep"]


def test_stop(client: Any, logger: Any, log: Any) -> None:
    callback = forward_logs(client, logger)
    client.remove_inform_callback("log", callback)
    log("info", Timestamp(NOW), "antenna", "x")
    assert logger.records == []


def test_it_survives_a_reconnection(
    io_loop: VirtualTimeLoop, device: FakeDevice, client: Any, logger: Any, log: Any
) -> None:
    forward_logs(client, logger)
    device.drop_all()
    io_loop.run_sync(client.wait_disconnected)
    io_loop.run_sync(client.wait_connected)
    log("info", Timestamp(NOW), "antenna", "x")
    assert len(logger.records) == 1


def test_two_loggers(client: Any, logger: Any, log: Any) -> None:
    forward_logs(client, logger)
    forward_logs(client, logger)
    log("info", Timestamp(NOW), "antenna", "x")
    assert len(logger.records) == 2


def test_wrong_arguments(client: Any) -> None:
    with pytest.raises(TypeError, match="logger must be a logging.Logger, not str"):
        forward_logs(client, "devices")  # type: ignore[arg-type]
