"""What stands in a #sensor-list, and in a reading."""

from __future__ import annotations

import enum
import json
import math
from fractions import Fraction
from typing import Any

import pytest

from katcp_tornado import Address, Reading, SensorInfo, SensorStatus, Timestamp
from katcp_tornado.sensors.types import STATUSES, VALUE_TYPES, check_name, read, split
from katcp_tornado.wire.values import decoder


@pytest.mark.parametrize("status", SensorStatus)
def test_status(status: Any) -> None:
    assert STATUSES[status.value.encode()] is status
    assert status.value == status.name.lower()
    assert status.valid_value is (status.value in ("nominal", "warn", "error"))


def test_the_statuses_are_those_of_the_guidelines() -> None:
    assert {status.value for status in SensorStatus} == {
        *("unknown", "nominal", "warn", "error", "failure", "unreachable", "inactive")
    }


def test_info() -> None:
    info = SensorInfo.parse([b"a.b", b"Says \xc3\xa9", b"", b"discrete", b"on", b"off"])
    assert info == ("a.b", "Says é", "", "discrete", [b"on", b"off"])
    assert SensorInfo.parse([b"a", b"\xff", b"m", b"integer"]) == ("a", "\\xff", "m", "integer", [])


@pytest.mark.parametrize("count", range(1, 4))
def test_info_of_too_few_arguments(count: int) -> None:
    """What is missing is empty."""
    info = SensorInfo.parse([b"a", b"b", b"c"][:count])
    assert info == ("a", *["b", "c"][: count - 1], *[""] * (4 - count), [])  # type: ignore[comparison-overlap]
    assert info.decoder(5)(b"raw") == b"raw"


@pytest.mark.parametrize("arguments", [[], [b""], [b"", b"b", b"c"]])
def test_info_without_a_name(arguments: list[bytes]) -> None:
    with pytest.raises(ValueError, match="a sensor has a name"):
        SensorInfo.parse(arguments)


def test_values_of_a_discrete_sensor() -> None:
    arguments = [b"a", b"", b"", b"discrete", b"on", b"\xff"]
    assert SensorInfo.parse(arguments).values == ["on", "\\xff"]
    assert SensorInfo.parse([b"a", b"", b"", b"integer", b"0", b"10"]).values == []


class Mode(enum.Enum):
    SLEWING_FAST = 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (5, 5),
        (True, True),
        (0.5, 0.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (Timestamp(1.5), 1.5),
        ("text", "text"),
        (b"a\xff", "a\\xff"),
        (Address("127.0.0.1", 7147), "127.0.0.1:7147"),
        (Mode.SLEWING_FAST, "slewing-fast"),
        (Fraction(1, 4), 0.25),
    ],
)
def test_plain(value: Any, plain: Any) -> None:
    reading = Reading("a", Timestamp(2.5), SensorStatus.NOMINAL, value)
    assert reading.plain() == {"name": "a", "timestamp": 2.5, "status": "nominal", "value": plain}
    assert type(reading.plain()["value"]) is type(plain)
    assert json.loads(json.dumps(reading.plain(), allow_nan=False)) == reading.plain()


@pytest.mark.parametrize(
    ("type_name", "raw", "value"),
    [
        ("integer", b"-4", -4),
        ("integer", b"0x0007", 7),
        ("integer", b"0xfffffffd", 4294967293),
        ("float", b"-4.00000000000000000e1", -40.0),
        ("boolean", b"1", True),
        ("boolean", b"0", False),
        ("timestamp", b"1.5", Timestamp(1.5)),
        ("discrete", b"on", "on"),
        ("address", b"[::1]:80", Address("::1", 80)),
        ("string", b"\xff\0", b"\xff\0"),
        ("lru", b"nominal", "nominal"),
        ("of-our-own", b"\xff", b"\xff"),
        ("", b"x", b"x"),
    ],
)
def test_values(type_name: str, raw: bytes, value: Any) -> None:
    decoded = SensorInfo("a", "", "", type_name, []).decoder(5)(raw)
    assert decoded == value and type(decoded) is type(value)


def test_nan() -> None:
    assert math.isnan(SensorInfo("a", "", "", "float", []).decoder(5)(b"nan"))


def test_timestamps_of_v4_are_milliseconds() -> None:
    assert SensorInfo("a", "", "", "timestamp", []).decoder(4)(b"1500") == 1.5


def test_every_type_of_the_guidelines_is_known() -> None:
    assert set(VALUE_TYPES) == {*("integer", "float", "boolean", "timestamp", "discrete", "address", "string", "lru")}


@pytest.mark.parametrize(
    ("arguments", "readings"),
    [
        ([b"1", b"1", b"a", b"nominal", b"5"], [(b"a", b"nominal", b"5")]),
        (
            [b"1", b"2", b"a", b"nominal", b"5", b"b", b"warn", b"6"],
            [(b"a", b"nominal", b"5"), (b"b", b"warn", b"6")],
        ),
        ([b"1", b"1", b"a", b"inactive"], [(b"a", b"inactive", b"")]),
        ([b"1", b"2", b"a", b"nominal", b"5", b"b", b"warn"], [(b"a", b"nominal", b"5"), (b"b", b"warn", b"")]),
        ([b"1", b"1", b"a"], []),
        ([b"1"], []),
        ([], []),
    ],
)
def test_split(arguments: Any, readings: Any) -> None:
    assert list(split(arguments)) == readings


def test_read() -> None:
    assert read("a", b"1500", b"warn", b"7", decoder(int), 4) == Reading("a", Timestamp(1.5), SensorStatus.WARN, 7)
    reading = read("a", b"1.5", b"unknown", b"7", decoder(int), 5)
    assert reading == ("a", 1.5, SensorStatus.UNKNOWN, 7) and type(reading.timestamp) is Timestamp  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", ["unknown", "failure", "unreachable", "inactive"])
def test_a_value_that_is_none_goes_with_a_status_that_says_so(status: str) -> None:
    assert read("a", b"1", status.encode(), b"", decoder(int), 5) == ("a", 1.0, SensorStatus(status), None)


@pytest.mark.parametrize(
    ("timestamp", "status", "value"),
    [(b"1", b"nominal", b""), (b"x", b"nominal", b"1"), (b"1", b"fine", b"1"), (b"x", b"inactive", b"1")],
)
def test_what_cannot_be_read(timestamp: bytes, status: bytes, value: bytes) -> None:
    with pytest.raises(ValueError):
        read("a", timestamp, status, value, decoder(int), 5)


def test_check_name() -> None:
    assert check_name("a") == "a"
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        check_name(b"a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        check_name("")
