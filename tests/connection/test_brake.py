"""The brake: at once, then less and less often."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

import pytest
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado.connection.brake import Brake


class Question:
    """Asks through a brake, and notes when. It is answered at once, or when the test says so."""

    def __init__(self, io_loop: IOLoop, *, answered: bool = True) -> None:
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._began = self._loop.time()
        self._answered = answered
        self.times: list[float] = []
        self.pending: Optional[asyncio.Future[Any]] = None
        self.brake = Brake(self._loop, self._ask)

    def _ask(self) -> Optional[asyncio.Future[Any]]:
        self.times.append(round(self._loop.time() - self._began, 3))
        if self._answered:
            return None
        self.pending = self._loop.create_future()
        return self.pending


@pytest.mark.gen_test
async def test_the_first_is_asked_at_once_and_a_burst_once_more(io_loop: IOLoop) -> None:
    question = Question(io_loop)
    for _ in range(1000):
        question.brake.announce()
    assert question.times == [0]
    await gen.sleep(10)
    assert question.times == [0, 0.1]


@pytest.mark.gen_test
async def test_the_pause_doubles_up_to_5_s(io_loop: IOLoop) -> None:
    question = Question(io_loop)
    for _ in range(2000):
        question.brake.announce()
        await gen.sleep(0.01)
    assert question.times == [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 11.3, 16.3]


@pytest.mark.gen_test
async def test_one_that_comes_later_resets_it(io_loop: IOLoop) -> None:
    question = Question(io_loop)
    for _ in range(30):
        question.brake.announce()
        await gen.sleep(0.01)
    await gen.sleep(1)
    question.times.clear()
    for _ in range(5):
        question.brake.announce()
    await gen.sleep(1)
    assert question.times == [1.3, 1.4]


@pytest.mark.gen_test
async def test_one_question_at_a_time(io_loop: IOLoop) -> None:
    question = Question(io_loop, answered=False)
    question.brake.announce()
    await gen.sleep(7)
    question.brake.announce()
    assert question.times == [0]
    assert question.pending is not None
    question.pending.set_result(None)
    await gen.sleep(1)
    assert question.times == [0, 7.1], "the pause counts from the answer"
    question.pending.set_result(None)
    await gen.sleep(60)
    assert question.times == [0, 7.1], "nobody has announced anything since"


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.gen_test
async def test_reset(io_loop: IOLoop, announced: bool) -> None:
    question = Question(io_loop, answered=False)
    question.brake.announce()
    if announced:
        question.brake.announce()
    old = question.pending
    assert old is not None
    question.brake.reset()
    question.brake.announce()
    assert question.times == [0, 0], "another device is asked at once"
    old.set_result(None)
    await gen.sleep(60)
    assert question.times == [0, 0], "the answer of the earlier one does not count"
