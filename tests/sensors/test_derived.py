"""A Future made from others: whatever becomes of one, becomes of all."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from katcp_tornado.sensors.queries import Derived
from katcp_tornado.testing import VirtualTimeLoop


@pytest.fixture
def loop(io_loop: VirtualTimeLoop) -> Any:
    return io_loop.asyncio_loop


@pytest.fixture
def parts(loop: Any) -> Any:
    return [loop.create_future(), loop.create_future()]


@pytest.fixture
def total(loop: Any, parts: Any) -> Any:
    return Derived(loop, parts, lambda a, b: a / b)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.gen_test
async def test_the_results_in_their_order(io_loop: VirtualTimeLoop, parts: Any, total: Any, order: Any) -> None:
    for index in order:
        assert not total.done()
        parts[index].set_result([6, 3][index])
        await io_loop.idle()
    assert await total == 2


@pytest.mark.gen_test
async def test_parts_that_are_done_already(loop: Any) -> None:
    done = loop.create_future()
    done.set_result(4)
    assert await Derived(loop, [done], lambda a: a + 1) == 5


@pytest.mark.gen_test
async def test_one_that_fails_leaves_the_others_alone(parts: Any, total: Any) -> None:
    """Their replies come, and are not to count as unmatched."""
    parts[1].set_exception(OSError("no"))
    with pytest.raises(OSError, match="no"):
        await total
    assert not parts[0].done()
    parts[0].set_exception(OSError("later"))


@pytest.mark.gen_test
async def test_both_fail(io_loop: VirtualTimeLoop, parts: Any, total: Any) -> None:
    parts[0].set_exception(OSError("first"))
    parts[1].set_exception(OSError("second"))
    with pytest.raises(OSError, match="first"):
        await total
    parts[1].exception()


@pytest.mark.gen_test
async def test_what_combine_raises(parts: Any, total: Any) -> None:
    parts[0].set_result(1)
    parts[1].set_result(0)
    with pytest.raises(ZeroDivisionError):
        await total


@pytest.mark.gen_test
async def test_cancel(parts: Any, total: Any) -> None:
    assert total.cancel()
    assert all(part.cancelled() for part in parts)
    assert not total.cancel()
    with pytest.raises(asyncio.CancelledError):
        await total


@pytest.mark.gen_test
async def test_a_part_that_is_cancelled(parts: Any, total: Any) -> None:
    parts[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await total
    assert parts[1].cancelled()


@pytest.mark.gen_test
async def test_nobody_looks_at_its_error(io_loop: VirtualTimeLoop, loop: Any, loop_errors: Any) -> None:
    part = loop.create_future()
    Derived(loop, [part], lambda a: a)
    part.set_exception(OSError("no"))
    await io_loop.idle()
    del part
    gc.collect()
    assert loop_errors == []
