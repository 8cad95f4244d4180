"""What a strategy is on the wire: times in seconds, in milliseconds for v4."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from katcp_tornado.sensors.strategies import NONE, Strategy


@pytest.mark.parametrize(
    ("name", "params", "v5", "v4"),
    [
        ("none", (), "none", "none"),
        ("auto", (), "auto", "auto"),
        ("event", (), "event", "event"),
        ("differential", (2,), "differential 2", "differential 2"),
        ("differential", (0.5,), "differential 0.5", "differential 0.5"),
        ("differential-rate", (2, 0.1, 3), "differential-rate 2 0.1 3", "differential-rate 2 100 3000"),
        ("period", (2,), "period 2", "period 2000"),
        ("period", (0.5,), "period 0.5", "period 500"),
        ("period", (0.00025,), "period 0.00025", "period 0.25"),
        ("period", (Fraction(1, 4),), "period 0.25", "period 250"),
        ("event-rate", (0.25, 10.0), "event-rate 0.25 10.0", "event-rate 250 10000"),
        # For the device to refuse:
        ("period", (), "period", "period"),
        ("period", (1, 2), "period 1 2", "period 1000 2"),
        ("period", ("0.5",), "period 0.5", "period 500"),
        ("event-rate", (b"0.25", "10"), "event-rate 0.25 10", "event-rate 250 10000"),
        ("period", (-1,), "period -1", "period -1000"),
        ("event", (1,), "event 1", "event 1"),
        ("of-our-own", (1.5, "x", b"y", True), "of-our-own 1.5 x y 1", "of-our-own 1.5 x y 1"),
    ],
)
def test_arguments(name: str, params: Any, v5: str, v4: str) -> None:
    strategy = Strategy.make(name, params)
    assert strategy == (name, params)
    assert b" ".join(strategy.arguments(5)).decode() == v5  # type: ignore[attr-defined]
    assert b" ".join(strategy.arguments(4)).decode() == v4  # type: ignore[attr-defined]


def test_any_iterable() -> None:
    assert Strategy.make("event-rate", [1, 2]) == Strategy.make("event-rate", iter((1, 2))) == ("event-rate", (1, 2))


def test_none() -> None:
    assert Strategy.make("none", ()) == NONE
    assert Strategy.make("auto", ()) != NONE


@pytest.mark.parametrize(
    ("name", "params", "error", "match"),
    [
        (b"auto", (), TypeError, "strategy must be a str, not bytes"),
        (None, (), TypeError, "strategy must be a str, not NoneType"),
        ("", (), ValueError, "strategy must not be empty"),
        ("period 10", (), ValueError, "strategy must be one word, not 'period 10'"),
        ("auto\n?halt", (), ValueError, "strategy must be one word"),
        ("period", ("often",), ValueError, "a number of seconds in place of 'often'"),
        ("event-rate", (1, b"x"), ValueError, "a number of seconds in place of"),
        ("period", "10", TypeError, "params must be a list or tuple, not str"),
        ("period", b"10", TypeError, "params must be a list or tuple, not bytes"),
        ("period", 10, TypeError, "params must be a list or tuple, not int"),
        ("period", [object()], TypeError, "object"),
    ],
)
def test_wrong_arguments(name: Any, params: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        Strategy.make(name, params)
