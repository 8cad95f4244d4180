"""What a client writes to the log, and how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tornado import gen

from katcp_tornado import Client, Message, ProtocolFlags
from katcp_tornado.connection.log import QUIET, ConnectionLog
from katcp_tornado.errors import AddressErrors, DeviceDisconnected
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

V5 = ProtocolFlags.parse("5.1-MIB")
REFUSED = ConnectionRefusedError(111, "Connection refused")
GONE = DeviceDisconnected("the device closed the connection")
DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING


class Log:
    """What was logged: time, level, text."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.lines: list[Any] = []
        self.handler = logging.Handler()
        self.handler.emit = self.emit  # type: ignore[method-assign]
        self.logger = logging.getLogger("katcp_tornado")

    def emit(self, record: Any) -> None:
        assert record.name == "katcp_tornado"
        assert record.exc_info is None and record.stack_info is None
        text = record.getMessage()
        assert "\n" not in text and "\r" not in text
        self.lines.append((self.io_loop.now, record.levelno, text))

    def loud(self, least: Any = INFO) -> Any:
        return [line for line in self.lines if line[1] >= least]

    def levels(self, least: Any = INFO) -> Any:
        return [level for _, level, _ in self.loud(least)]

    def most_in_a_minute(self, least: Any = INFO) -> Any:
        times = [when for when, _, _ in self.loud(least)]
        return max((sum(start <= when < start + QUIET for when in times) for start in times), default=0)


@pytest.fixture
def log(io_loop: VirtualTimeLoop, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    caplog.set_level(DEBUG, logger="katcp_tornado")
    log = Log(io_loop)
    log.logger.addHandler(log.handler)
    yield log
    log.logger.removeHandler(log.handler)


@pytest.fixture
def reporter(io_loop: VirtualTimeLoop, log: Any) -> Iterator[Any]:
    reporter = ConnectionLog(io_loop.asyncio_loop, "dev:7147")
    yield reporter
    reporter.closed()


def fail(reporter: Any, delay: float = 1.0) -> None:
    reporter.lost(REFUSED, connected=False, delay=delay)


def lose(reporter: Any, delay: float = 1.0) -> None:
    reporter.lost(GONE, connected=True, delay=delay)


@pytest.mark.gen_test
async def test_the_first_connection(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    await gen.sleep(1000)
    assert log.lines == [(0, INFO, "dev:7147: connected, KATCP 5.1-BIM")]


@pytest.mark.gen_test
async def test_an_outage(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    await gen.sleep(100)
    lose(reporter, 0.35)
    await gen.sleep(2)
    fail(reporter)
    await gen.sleep(3.5)
    fail(reporter)
    await gen.sleep(1)
    reporter.connected(V5)
    await gen.sleep(1000)
    assert log.lines[1:] == [
        (
            100,
            WARNING,
            "dev:7147: the link was lost: DeviceDisconnected: the device closed the connection; next attempt in 0.3 s",
        ),
        (
            102,
            DEBUG,
            f"dev:7147: could not connect: ConnectionRefusedError: {REFUSED}; next attempt in 1.0 s",
        ),
        (105.5, DEBUG, log.lines[2][2]),
        (106.5, INFO, "dev:7147: connected again after 6.5 s and 2 failed attempts"),
    ]


@pytest.mark.gen_test
async def test_an_outage_from_the_start(reporter: Any, log: Any) -> None:
    for _ in range(3):
        fail(reporter)
        await gen.sleep(2)
    reporter.connected(V5)
    assert log.levels(DEBUG) == [WARNING, DEBUG, DEBUG, INFO]
    assert log.lines[0][2].startswith("dev:7147: could not connect: ConnectionRefusedError")
    assert log.lines[-1][2] == "dev:7147: connected again after 6.0 s and 3 failed attempts"


@pytest.mark.gen_test
async def test_a_long_outage_is_a_line_a_minute(reporter: Any, log: Any) -> None:
    lose(reporter)
    for _ in range(2000):
        await gen.sleep(7)
        fail(reporter)
    await gen.sleep(3)
    reporter.connected(V5)
    assert log.levels(WARNING) == [WARNING]
    assert log.most_in_a_minute() <= 2  # the last of the outage, and the recovery
    still = [line for line in log.loud() if "still out" in line[2]]
    assert 14_000 / (QUIET + 7) <= len(still) <= 14_000 / QUIET
    assert still[0][2].startswith("dev:7147: still out after 63 s and 9 failed attempts: could not connect: ")
    assert log.lines[-1][2] == "dev:7147: connected again after 14003.0 s and 2000 failed attempts"
    assert len([line for line in log.lines if line[1] == DEBUG]) == 2000 - len(still)


@pytest.mark.gen_test
async def test_two_outages_far_apart_are_two(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    for length in (5, 2):
        await gen.sleep(1000)
        lose(reporter)
        await gen.sleep(length)
        fail(reporter)
        reporter.connected(V5)
    assert log.levels() == [INFO, WARNING, INFO, WARNING, INFO]
    assert [text for _, level, text in log.lines if "again" in text] == [
        "dev:7147: connected again after 5.0 s and 1 failed attempts",
        "dev:7147: connected again after 2.0 s and 1 failed attempts",
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("up", [0.0, 0.5, 5.0, 29.0])
async def test_a_device_that_flaps(reporter: Any, log: Any, up: float) -> None:
    """Up and down for twenty minutes: it is reported as up once a minute at most, and as down no more often."""
    reporter.connected(V5)
    while log.io_loop.now < 1200:
        await gen.sleep(up)
        lose(reporter)
        await gen.sleep(1)
        reporter.connected(V5)
    again = [when for when, _, text in log.lines if "connected again" in text]
    assert all(later - earlier >= QUIET for earlier, later in zip(again, again[1:]))
    assert 10 <= len(again) <= 21
    assert len(again) <= log.levels().count(WARNING) <= len(again) + 1
    assert log.most_in_a_minute() <= 4
    assert len(log.loud()) <= 3 * 20


@pytest.mark.gen_test
async def test_a_recovery_that_was_not_told_is_told_later(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    for _ in range(2):
        await gen.sleep(1)
        lose(reporter)
        await gen.sleep(1)
        reporter.connected(V5)
    # the first recovery, at 2 s, was told; that of 4 s is told a minute after it, when it has lasted
    assert [when for when, _, text in log.lines if "again" in text] == [2]
    await gen.sleep(1000)
    assert [when for when, _, text in log.lines if "again" in text] == [2, 2 + QUIET]
    # ... and the log's last word is true
    assert log.loud()[-1][1] == INFO


@pytest.mark.gen_test
async def test_the_length_of_an_outage_does_not_grow_by_the_silence_after_it(reporter: Any, log: Any) -> None:
    """R36: the INFO at recovery has the outage's length, also when it is told later."""
    for _ in range(2):
        lose(reporter)
        await gen.sleep(1)
        reporter.connected(V5)
        await gen.sleep(1)
    await gen.sleep(1000)
    assert log.lines[-1] == (1 + QUIET, INFO, "dev:7147: connected again after 1.0 s and 0 failed attempts")


@pytest.mark.gen_test
async def test_a_recovery_that_did_not_last_is_not_told(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    for _ in range(2):
        lose(reporter)
        await gen.sleep(1)
        reporter.connected(V5)
    await gen.sleep(1)
    lose(reporter)  # before the minute is over: it stays down
    await gen.sleep(1000)
    assert [when for when, _, text in log.lines if "again" in text] == [1]


@pytest.mark.gen_test
async def test_giving_up(reporter: Any, log: Any) -> None:
    """It is said at once, however little time has passed since the last line."""
    fail(reporter)
    await gen.sleep(1)
    fail(reporter, delay=None)  # type: ignore[arg-type]
    await gen.sleep(1000)
    assert [(when, level) for when, level, _ in log.lines] == [(0, WARNING), (1, WARNING)]
    assert log.lines[1][2].startswith("dev:7147: could not connect: ConnectionRefusedError")
    assert log.lines[1][2].endswith("; giving up")


@pytest.mark.gen_test
async def test_the_only_attempt(reporter: Any, log: Any) -> None:
    """Its error is raised to whoever waits for the client, so it is no WARNING too."""
    fail(reporter, delay=None)  # type: ignore[arg-type]
    await gen.sleep(1000)
    assert log.levels(DEBUG) == [INFO]
    assert log.lines[0][2].endswith("; giving up")


@pytest.mark.gen_test
async def test_a_link_that_is_lost_for_good(reporter: Any, log: Any) -> None:
    reporter.connected(V5)
    lose(reporter, delay=None)  # type: ignore[arg-type]
    await gen.sleep(1000)
    assert log.levels(DEBUG) == [INFO, WARNING]


@pytest.mark.gen_test
async def test_nothing_after_closed(reporter: Any, log: Any) -> None:
    for _ in range(2):
        lose(reporter)
        await gen.sleep(1)
        reporter.connected(V5)
    said = len(log.lines)
    reporter.closed()
    assert sum(not handle.cancelled() for handle in log.io_loop.asyncio_loop._scheduled) == 0
    await gen.sleep(1000)
    assert len(log.lines) == said


@pytest.mark.gen_test
async def test_the_addresses_are_told(reporter: Any, log: Any) -> None:
    error = ConnectionRefusedError(111, "Connection refused")
    error.__cause__ = AddressErrors({"[::1]:80": OSError(101, "unreachable"), "127.0.0.1:80": REFUSED})
    reporter.lost(error, connected=False, delay=1)
    assert "[::1]:80: OSError: [Errno 101] unreachable; 127.0.0.1:80: ConnectionRefusedError" in log.lines[0][2]


@pytest.mark.gen_test
async def test_a_cause_is_one_printable_line(reporter: Any, log: Any) -> None:
    reporter.lost(DeviceDisconnected("bye\n\x1b[31mERROR fake line\r\u202e"), connected=True, delay=1)
    text = log.lines[0][2]
    assert text.isprintable()
    assert "bye\\n\\x1b[31mERROR" in text


# Lines that are not messages, and messages that nobody wants


@pytest.mark.gen_test
async def test_malformed_lines_are_a_line_a_minute(reporter: Any, log: Any) -> None:
    for i in range(300):
        reporter.malformed(ValueError(f"number {i}"))
        await gen.sleep(1)
    assert log.most_in_a_minute() == 1
    assert [(when, level) for when, level, _ in log.lines] == [(60 * i, WARNING) for i in range(5)]
    start = "dev:7147: a line from the device is not a KATCP message: "
    assert log.lines[0][2] == start + "number 0"
    assert log.lines[1][2] == start + "number 60 (and 59 more since the last such line)"
    await gen.sleep(1000)
    reporter.malformed(ValueError("late"))
    reporter.malformed(ValueError("later"))
    await gen.sleep(QUIET)
    reporter.malformed(ValueError("%s %d"))
    await gen.sleep(0)
    assert log.lines[5][2] == start + "late (and 59 more since the last such line)"
    assert log.lines[6][2] == start + "%s %d (and 1 more since the last such line)"


@pytest.mark.gen_test
async def test_unknown_messages_are_a_line_a_minute(reporter: Any, log: Any) -> None:
    for i in range(120):
        reporter.unknown(Message.inform("what", i, "100%s")._raw)
        await gen.sleep(1)
    assert [(when, level) for when, level, _ in log.lines] == [(0, DEBUG), (60, DEBUG)]
    assert log.lines[0][2] == "dev:7147: nobody wants #what 0 100%s"
    assert log.lines[1][2] == "dev:7147: nobody wants #what 60 100%s (and 59 more since the last such line)"


@pytest.mark.gen_test
async def test_misfits_are_a_line_a_minute_for_each_inform(reporter: Any, log: Any) -> None:
    for i in range(120):
        for name in ("tick", "tock"):
            reporter.misfit(Message.inform(name, i, "%s")._raw, len, ValueError(f"number {i}"))
        await gen.sleep(1)
    assert [(when, level) for when, level, _ in log.lines] == [(0, WARNING), (0, WARNING), (60, WARNING), (60, WARNING)]
    assert log.lines[0][2] == f"dev:7147: #tick does not fit its callback {len!r}: number 0: #tick 0 %s"
    assert log.lines[1][2].startswith("dev:7147: #tock does not fit")
    assert log.lines[2][2].endswith("number 60: #tick 60 %s (and 59 more since the last such line)")


@pytest.mark.gen_test
async def test_unknown_messages_cost_nothing_when_nobody_listens(
    reporter: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.logger.setLevel(INFO)
    monkeypatch.setattr(Message, "wrap", None)
    reporter.unknown(Message.inform("what")._raw)
    assert log.lines == []


@pytest.mark.gen_test
async def test_one_kind_of_line_does_not_silence_another(reporter: Any, log: Any) -> None:
    reporter.malformed(ValueError("bad"))
    reporter.unknown(Message.inform("what")._raw)
    lose(reporter)
    reporter.connected(V5)
    await gen.sleep(0)
    assert sorted(log.levels(DEBUG)) == [DEBUG, INFO, WARNING, WARNING]


# Through a client


@pytest.mark.gen_test
async def test_the_log_of_a_client(device: FakeDevice, log: Any) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        device.send_raw(b"garbage\x1b[31m\x07\n")
        device.inform_all("nobody-knows-this")
        await gen.sleep(100)
        device.stop(reason="maintenance")
        await client.wait_disconnected()
        await gen.sleep(300)
        device.start()
        await client.wait_connected()
        attempts = client.stats.attempts
        await gen.sleep(1000)
    lines = [f"{logging.getLevelName(level)} {text}" for _, level, text in log.loud()]
    name = device.address
    assert lines[0] == f"INFO {name}: connected, KATCP 5.1-BIM"
    assert lines[1].startswith(f"WARNING {name}: a line from the device is not a KATCP message: ")
    assert lines[1].isprintable()
    start = f"WARNING {name}: the link was lost: DeviceDisconnected: the device disconnected us: maintenance; next"
    assert lines[2].startswith(start)
    for line in lines[3:-1]:
        assert line.startswith(f"INFO {name}: still out after ")
        assert "ConnectionRefusedError" in line
    assert 3 <= len(lines[3:-1]) <= 5
    assert lines[-1].startswith(f"INFO {name}: connected again after 3")
    assert lines[-1].endswith(f" s and {attempts - 2} failed attempts")


@pytest.mark.gen_test
async def test_a_closed_client_says_nothing(device: FakeDevice, log: Any) -> None:
    client = Client(device.host, device.port)
    await client.wait_connected()
    client.close()
    await client.wait_closed()
    await gen.sleep(1000)
    assert log.levels(DEBUG) == [INFO]
