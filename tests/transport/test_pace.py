"""Pace: what of many clients goes into one turn of the loop."""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any, Callable
from unittest import mock

import pytest

from katcp_tornado.transport import pace
from katcp_tornado.transport.pace import Pace
from katcp_tornado.transport.timers import Timer

STEP = 1 / 128  # s; the clock adds them up exactly


class Loop:
    """Steps of many clients, each of which takes an eighth of a turn; and a loop whose clock they move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: list[Callable[[], Any]] = []
        self.timers: list[Callable[[], Any]] = []
        self.pace = Pace()
        self.done: list[int] = []

    def time(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> mock.Mock:
        self.ready.append(partial(callback, *args))
        return mock.Mock()

    def call_at(self, when: float, callback: Callable[..., Any]) -> mock.Mock:
        self.timers.append(callback)
        return mock.Mock()

    def step(self, number: int) -> None:
        self.now += STEP
        self.done.append(number)

    def turn(self, *numbers: int) -> list[int]:
        """A turn of the loop in which these want to take their steps; returns those that were taken."""
        before = len(self.done)
        ready, self.ready = self.ready, []
        timers, self.timers = self.timers, []
        for callback in ready:
            callback()
        for number in numbers:
            step = partial(self.step, number)
            if not self.pace.full(self, step):  # type: ignore[arg-type]
                step()
        for callback in timers:
            callback()
        return self.done[before:]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(pace, "TURN", 8 * STEP)
    monkeypatch.setattr(pace, "HALF", 4 * STEP)
    return Loop()


def test_what_goes_beyond_a_turn_waits_and_comes_in_order(loop: Loop) -> None:
    assert loop.turn(*range(30)) == [0, 1, 2, 3]  # half a turn, from the first on: when it began, nobody had noted
    assert [len(loop.turn()) for _ in range(5)] == [8, 8, 8, 2, 0]
    assert loop.done == list(range(30))
    assert not loop.ready


def test_few_never_wait(loop: Loop) -> None:
    for _ in range(10):
        assert loop.turn(1, 2, 3) == [1, 2, 3]


def test_those_that_come_later_wait_behind(loop: Loop) -> None:
    loop.turn(*range(20))
    for number in (20, 21):
        loop.turn(number)
    loop.turn()
    assert loop.done == list(range(22))


def test_a_step_that_raises_leaves_the_others(loop: Loop) -> None:
    loop.turn(*range(6))

    def fail() -> None:
        raise KeyboardInterrupt

    assert loop.pace.full(loop, fail)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        loop.turn()
    loop.turn(6)
    assert loop.done == list(range(7))


def test_each_step_runs_in_its_own_context(loop: Loop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    found: list[int] = []

    def step() -> None:
        found.append(variable.get())

    loop.turn(*range(6))
    for number in (1, 2):
        context = contextvars.copy_context()
        context.run(variable.set, number)
        assert context.run(loop.pace.full, loop, partial(step))  # type: ignore[arg-type]
    loop.turn()
    assert found == [1, 2]


def test_a_deadline_waits_for_what_is_still_to_be_read(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "of", lambda _: loop.pace)
    fired: list[int] = []
    timer = Timer(loop, lambda: fired.append(len(loop.done)), lambda: len(loop.done))  # type: ignore[arg-type]
    loop.turn(*range(30))
    timer.start(0.0)
    for _ in range(20):
        loop.turn()
    assert fired == [30]


def test_one_pace_for_each_loop() -> None:
    one, other = Loop(), Loop()
    assert pace.of(one) is pace.of(one) is not pace.of(other)  # type: ignore[arg-type]
