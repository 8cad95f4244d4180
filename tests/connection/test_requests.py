"""The Futures that a client hands out, and the one timer that looks after their deadlines."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from typing import Any, Optional

import pytest
from tornado import gen

from katcp_tornado import (
    ClientClosed,
    ConnectionLost,
    FailReply,
    InvalidReply,
    Message,
    Reply,
    RequestTimeout,
    WaitTimeout,
)
from katcp_tornado.connection.deadlines import Deadlines
from katcp_tornado.connection.requests import Request
from katcp_tornado.connection.waiters import Waiter
from katcp_tornado.testing import VirtualTimeLoop


class NotedWaiter(Waiter[Any]):
    """A waiter that tells its desk when it expires."""

    def expire(self) -> None:
        self.holder.note(self)  # type: ignore[attr-defined]
        super().expire()
        self.holder.on_expire(self)  # type: ignore[attr-defined]


class Desk:
    """Who keeps the Futures, in place of a link: a list of what is pending, and its Deadlines."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
        self.last_exc: Optional[BaseException] = None
        self.pending: list[Any] = []
        self.abandoned: list[Any] = []
        self.expired: list[tuple[float, Any]] = []
        self.looked_at = 0
        self.read = 0
        self.deadlines = Deadlines(self.loop, self.look, lambda: self.read)

    def look(self) -> list[Any]:
        self.looked_at += len(self.pending)
        return list(self.pending)

    def expire(self, request: Request) -> None:
        """A request's deadline has passed: as `PendingRequests` does it."""
        self.note(request)
        what = "no reply" if request.sent else "not sent"
        error = f"?{request.name.decode()}: {what} within {request.timeout:g} s"
        request.fail(RequestTimeout(error, sent=request.sent))
        request.abandon()
        self.on_expire(request)

    def note(self, future: Any) -> None:
        self.expired.append((self.io_loop.now, future))

    def on_expire(self, future: Any) -> None:
        """What a user does who hears of it. Tests replace it."""

    def abandon(self, future: Any) -> None:
        self.abandoned.append(future)
        if future in self.pending:
            self.pending.remove(future)

    remove = abandon

    def keep(self, future: Any) -> Any:
        self.pending.append(future)
        self.deadlines.watch(future.deadline)
        return future

    def request(
        self, timeout: Optional[float] = None, name: bytes = b"do-it", on_inform: Any = None, raw: bool = False
    ) -> Request:
        return self.keep(Request.make(self.loop, self, timeout, name, (), on_inform, raw, self.loop.time()))  # type: ignore[arg-type, no-any-return]

    def waiter(
        self, timeout: Optional[float] = None, what: str = "nothing has come", reached: Any = None
    ) -> Waiter[Any]:
        return self.keep(NotedWaiter(self.loop, self, timeout, what, reached))  # type: ignore[arg-type, no-any-return]


@pytest.fixture
def desk(io_loop: VirtualTimeLoop) -> Desk:
    return Desk(io_loop)


def scheduled(io_loop: VirtualTimeLoop) -> int:
    """How many timers of the loop are live."""
    return sum(not handle.cancelled() for handle in io_loop.asyncio_loop._scheduled)  # type: ignore[attr-defined]


def reply(line: bytes) -> Any:
    return Message.parse(line)._raw


# Answers


@pytest.mark.gen_test
async def test_an_ok_reply(desk: Desk) -> None:
    request = desk.request()
    request.informs.append(Message.inform("do-it", 1))
    request.answer(reply(b"!do-it[3] ok 1 two"))
    assert (await request.future) == Reply([b"1", b"two"], [Message.inform("do-it", 1)])
    arguments, informs = request.future.result()
    assert (arguments, informs) == ([b"1", b"two"], [Message.inform("do-it", 1)])


@pytest.mark.gen_test
async def test_a_bare_ok(desk: Desk) -> None:
    request = desk.request()
    request.answer(reply(b"!do-it ok"))
    assert await request.future == ([], [])


@pytest.mark.gen_test
@pytest.mark.parametrize("line", [b"!do-it ok 1", b"!do-it fail no", b"!do-it invalid", b"!do-it", b"!do-it \\0\\n x"])
async def test_raw_gets_whatever_the_device_says(desk: Desk, line: bytes) -> None:
    request = desk.request(raw=True)
    request.answer(reply(line))
    assert await request.future == (Message.parse(line), [])


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("line", "cls", "text"),
    [
        (b"!do-it fail too\\_hot", FailReply, "too hot"),
        (b"!do-it fail", FailReply, "fail, for no reason given"),
        (b"!do-it fail one two", FailReply, "one"),
        (b"!do-it fail \\@", FailReply, ""),
        (b"!do-it fail \xc3\xa9t\xc3\xa9", FailReply, "été"),
        (b"!do-it fail \xff", FailReply, "\\xff"),
        (b"!do-it invalid what?", InvalidReply, "what?"),
        (b"!do-it invalid", InvalidReply, "invalid, for no reason given"),
        (b"!do-it odd 1", InvalidReply, "neither ok, fail nor invalid: !do-it odd 1"),
        (b"!do-it OK 1", InvalidReply, "neither ok, fail nor invalid: !do-it OK 1"),
        (b"!do-it", InvalidReply, "neither ok, fail nor invalid: !do-it"),
        (b"!do-it \\0\\n\\r\\_ 42", InvalidReply, "neither ok, fail nor invalid: !do-it \\0\\n\\r\\_ 42"),
        (b"!do-it \x80", InvalidReply, "neither ok, fail nor invalid: !do-it \\x80"),
    ],
)
async def test_refusals(desk: Desk, line: bytes, cls: type[FailReply], text: str) -> None:
    request = desk.request()
    request.informs.append(Message.inform("do-it", "why"))
    request.answer(reply(line))
    with pytest.raises((FailReply, InvalidReply)) as caught:
        await request.future
    error = caught.value
    assert type(error) is cls
    assert str(error) == text
    assert error.reply == Message.parse(line)
    assert error.informs == [Message.inform("do-it", "why")]
    assert error.sent is True


# Deadlines of one


@pytest.mark.gen_test
@pytest.mark.parametrize(("sent", "text"), [(True, "no reply within 2 s"), (False, "not sent within 2 s")])
async def test_a_request_that_is_late(desk: Desk, sent: bool, text: str) -> None:
    request = desk.request(2)
    request.sent = sent
    assert request.deadline == desk.io_loop.now + 2
    with pytest.raises(RequestTimeout, match=rf"^\?do-it: {text}$") as caught:
        await request.future
    assert desk.io_loop.now == 2
    assert caught.value.sent is sent
    assert desk.abandoned == [request]


@pytest.mark.gen_test
async def test_a_waiter_that_is_late(desk: Desk) -> None:
    waiter = desk.waiter(0.5, "the moon is not up")
    with pytest.raises(WaitTimeout, match=r"^the moon is not up after 0\.5 s$") as caught:
        await waiter
    assert caught.value.__cause__ is None
    assert desk.abandoned == [waiter]


@pytest.mark.gen_test
async def test_a_late_waiter_says_why(desk: Desk) -> None:
    waiter = desk.waiter(10, "not connected")
    desk.last_exc = ConnectionRefusedError(111, "Connection refused")  # the cause of then, not of the call
    with pytest.raises(WaitTimeout, match=r"not connected after 10 s \(ConnectionRefusedError: .*refused\)") as caught:
        await waiter
    assert caught.value.__cause__ is desk.last_exc


@pytest.mark.gen_test
async def test_without_a_deadline(desk: Desk) -> None:
    request, waiter = desk.request(None), desk.waiter(None)
    assert request.deadline is waiter.deadline is None
    assert scheduled(desk.io_loop) == 0
    await gen.sleep(80_000)
    assert not request.done() and not waiter.done()


@pytest.mark.gen_test
async def test_a_deadline_of_zero_is_in_the_next_turn(desk: Desk) -> None:
    request = desk.request(0)
    assert not request.done()
    with pytest.raises(RequestTimeout):
        await request.future
    assert desk.io_loop.now == 0


# Giving up


@pytest.mark.gen_test
async def test_a_request_whose_future_is_cancelled_is_done(desk: Desk) -> None:
    """Nobody is told: it is found when it is looked at, at the latest when its deadline has come."""
    request = desk.request(10)
    assert not request.done()
    assert request.future.cancel()
    assert request.done()
    await desk.io_loop.idle()
    assert desk.abandoned == [] and desk.pending == [request]
    await gen.sleep(10)
    assert desk.expired == [(10, request)]


@pytest.mark.gen_test
async def test_a_request_that_is_watched_is_abandoned_in_the_next_turn(desk: Desk) -> None:
    request = desk.request(10)
    request.watch()
    assert request.future.cancel()
    await desk.io_loop.idle()
    assert desk.abandoned == [request] and desk.pending == []
    with pytest.raises(asyncio.CancelledError):
        await request.future


@pytest.mark.gen_test
async def test_cancel_abandons_a_waiter_at_once(desk: Desk) -> None:
    waiter = desk.waiter(10)
    assert waiter.cancel()
    assert desk.abandoned == [waiter] and desk.pending == []
    assert waiter.cancelled()
    assert not waiter.cancel()
    assert desk.abandoned == [waiter]
    with pytest.raises(asyncio.CancelledError):
        await waiter


@pytest.mark.gen_test
async def test_a_task_that_is_cancelled_gives_up_what_it_waits_for(desk: Desk) -> None:
    request, waiter = desk.request(10), desk.waiter(10)

    async def ask(future: asyncio.Future[Any]) -> None:
        await future

    tasks = [asyncio.ensure_future(ask(future)) for future in (request.future, waiter)]
    await desk.io_loop.idle()
    for task in tasks:
        task.cancel()
    assert request.done() and desk.abandoned == [waiter]
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.gen_test
async def test_a_request_is_awaited_as_asyncio_s_own_futures_are(desk: Desk) -> None:
    # a task takes a shortcut for these, and for these only
    assert type(desk.request().future) is asyncio.Future


@pytest.mark.gen_test
def test_a_yield_of_tornado_gets_it(desk: Desk) -> Generator[Any, Any, Any]:
    request, late = desk.request(), desk.request(3)
    request.answer(reply(b"!do-it ok 1"))
    arguments, informs = yield request.future
    assert (arguments, informs) == ([b"1"], [])
    with pytest.raises(RequestTimeout):
        yield late.future


@pytest.mark.gen_test
async def test_with_timeout_of_tornado_gives_nothing_up(desk: Desk) -> None:
    # gen.with_timeout does not cancel: the entry stays until its own deadline, and no error is logged then
    request = desk.request(10)
    with pytest.raises(gen.TimeoutError):  # type: ignore[attr-defined]
        await gen.with_timeout(desk.io_loop.time() + 5, request.future, quiet_exceptions=RequestTimeout)
    assert desk.pending == [request]
    await gen.sleep(10)
    assert isinstance(request.future.exception(), RequestTimeout)
    assert desk.pending == []


@pytest.mark.gen_test
async def test_what_is_settled_stays_as_it_is(desk: Desk) -> None:
    request, waiter = desk.request(), desk.waiter()
    request.answer(reply(b"!do-it ok"))
    waiter.resolve(5)
    request.fail(ClientClosed())
    waiter.fail(ClientClosed())
    request.future.cancel()
    waiter.cancel()
    waiter.resolve(6)
    assert request.future.result() == Reply([], [])
    assert waiter.result() == 5
    assert desk.abandoned == [waiter]  # once


@pytest.mark.gen_test
async def test_a_waiter_leaves_the_table_when_it_is_resolved(desk: Desk) -> None:
    waiter = desk.waiter(10)
    waiter.resolve("this")
    assert await waiter == "this"
    assert desk.pending == []


@pytest.mark.gen_test
async def test_nobody_needs_to_look_at_an_error(desk: Desk, loop_errors: list[str]) -> None:
    """A Future that was dropped, with an exception in it, is not reported as "never retrieved"."""
    refused, failed, late, dropped = desk.request(), desk.request(), desk.request(5), desk.waiter(5)
    refused.fail(ClientClosed())
    failed.fail(ConnectionLost("gone"))
    await gen.sleep(10)
    assert isinstance(late.future._exception, RequestTimeout) and isinstance(dropped._exception, WaitTimeout)
    desk.pending.clear()
    desk.abandoned.clear()
    desk.expired.clear()
    del refused, failed, late, dropped
    gc.collect()
    await desk.io_loop.idle()
    assert loop_errors == []


@pytest.mark.gen_test
async def test_a_refusal_that_nobody_looks_at_is_reported(desk: Desk, loop_errors: list[str]) -> None:
    """As asyncio reports any exception of a Future that nobody has looked at: an `await` may be missing."""
    desk.request().answer(reply(b"!do-it fail no"))
    desk.pending.clear()
    gc.collect()
    await desk.io_loop.idle()
    assert len(loop_errors) == 1 and "FailReply" in loop_errors.pop()


def test_closed_loops() -> None:
    """A loop that was closed under its client: nothing can be settled, and nothing is raised."""
    io_loop = VirtualTimeLoop()
    desk = Desk(io_loop)
    lone, awaited, waiter = desk.request(), desk.request(), desk.waiter()
    heard: list[asyncio.Future[Any]] = []
    awaited.future.add_done_callback(heard.append)
    waiter.add_done_callback(heard.append)
    io_loop.close()
    lone.fail(ClientClosed())
    awaited.fail(ClientClosed())
    waiter.fail(ClientClosed())
    assert heard == []


def test_a_waiter_on_a_closed_loop_does_not_raise() -> None:
    # wait_disconnected() and wait_closed() are resolved, not refused, when their client is closed
    io_loop = VirtualTimeLoop()
    desk = Desk(io_loop)
    waiter = desk.waiter()
    waiter.add_done_callback(lambda _: None)
    io_loop.close()
    waiter.resolve(None)


# Deadlines of many


@pytest.mark.gen_test
async def test_they_expire_in_the_order_of_their_deadlines(desk: Desk) -> None:
    delays = [5, 1, 3, 0.25, 4, 2]
    made = {delay: desk.request(delay) for delay in delays}
    await gen.sleep(10)
    assert desk.expired == [(pytest.approx(delay), made[delay]) for delay in sorted(delays)]  # type: ignore[comparison-overlap]


@pytest.mark.gen_test
async def test_equal_deadlines_expire_in_the_order_they_were_made(desk: Desk) -> None:
    made = [desk.request(5) for _ in range(20)]
    await gen.sleep(5)
    assert [future for _, future in desk.expired] == made
    assert desk.pending == []


@pytest.mark.gen_test
async def test_there_is_one_timer_for_all(desk: Desk) -> None:
    for i in range(1000):
        desk.request(10 + i % 7)
        assert scheduled(desk.io_loop) == 1
    for request in list(desk.pending):
        request.answer(reply(b"!do-it ok"))
    desk.pending.clear()
    assert scheduled(desk.io_loop) == 1  # left to itself: it costs nothing, and fires once
    await gen.sleep(100)
    assert scheduled(desk.io_loop) == 0
    assert desk.expired == []


@pytest.mark.gen_test
async def test_a_shorter_deadline_is_kept(desk: Desk) -> None:
    long = desk.request(100)
    await gen.sleep(1)
    short = desk.request(1)
    longer = desk.request(200)
    await gen.sleep(1000)
    assert desk.expired == [(2, short), (100, long), (201, longer)]


@pytest.mark.gen_test
async def test_those_without_a_deadline_are_passed_over(desk: Desk) -> None:
    desk.request(None)
    mortal = desk.request(5)
    desk.waiter(None)
    await gen.sleep(1000)
    assert desk.expired == [(5, mortal)]
    assert scheduled(desk.io_loop) == 0


@pytest.mark.gen_test
async def test_a_deadline_may_be_moved_on(desk: Desk) -> None:
    # as happens to an abandoned request without message id: it then waits for its late reply
    request = desk.request(5)
    request.deadline = desk.io_loop.now + 30
    desk.deadlines.watch(request.deadline)
    await gen.sleep(1000)
    assert desk.expired == [(30, request)]


@pytest.mark.gen_test
async def test_cancel_of_all(desk: Desk) -> None:
    desk.request(5)
    desk.deadlines.cancel()
    assert scheduled(desk.io_loop) == 0
    await gen.sleep(10)
    assert desk.expired == []
    again = desk.request(5)
    await gen.sleep(10)
    assert again in [future for _, future in desk.expired]


@pytest.mark.gen_test
async def test_what_an_expiry_changes(desk: Desk) -> None:
    """Whoever hears of an expiry may give up others, and make new ones."""
    first, second = desk.request(5), desk.request(5)
    made: list[Request] = []

    def on_expire(future: Any) -> None:
        if future is first:
            second.future.cancel()
            made.append(desk.request(1))

    desk.on_expire = on_expire  # type: ignore[method-assign]
    await gen.sleep(100)
    assert isinstance(first.future.exception(), RequestTimeout)
    assert second.future.cancelled()
    assert isinstance(made[0].future.exception(), RequestTimeout)
    assert (6, made[0]) in desk.expired


@pytest.mark.gen_test
@pytest.mark.parametrize("count", [1000, 4000])
async def test_looking_through_costs_a_bounded_share_of_the_time(desk: Desk, count: int) -> None:
    """Deadlines that all differ: not a sweep for each, but one for each microsecond per pending Future."""
    spread = count * 1e-7
    for i in range(count):
        desk.request(1 + i * 1e-7)
    await gen.sleep(2)
    assert len(desk.expired) == count and desk.pending == []
    assert spread / (count * 1e-6) < 1
    # A sweep for each would have looked at count * count / 2 of them.
    assert desk.looked_at <= 8 * count
    # ... and each is late by less than it takes to look through them all.
    assert max(when for when, _ in desk.expired) <= 1 + spread + count * 2e-6


@pytest.mark.gen_test
async def test_a_stream_of_short_requests_costs_no_sweep_for_each(desk: Desk) -> None:
    """Requests that are answered in time, each with its own deadline: the timer fires once in a while."""
    for _ in range(1000):
        request = desk.request(30)
        await gen.sleep(0.1)
        request.answer(reply(b"!do-it ok"))
        desk.pending.remove(request)
    # 100 s have passed, with deadlines 30 s ahead: the timer has fired each 30 s or so.
    assert desk.looked_at <= 10
    assert desk.expired == []


@pytest.mark.gen_test
async def test_a_held_up_loop_reads_before_it_expires_anything(desk: Desk) -> None:
    """R22: a reply that is in the kernel already is no timeout."""
    request = desk.request(5)
    desk.loop.call_at(desk.io_loop.now + 5 - 1e-9, hold_up, desk.io_loop, 60)

    def read() -> None:
        desk.read += 1
        if desk.read == 3:
            request.answer(reply(b"!do-it ok"))
            desk.pending.remove(request)
        elif desk.read < 3:
            desk.loop.call_at(desk.io_loop.now, read)

    desk.loop.call_at(desk.io_loop.now + 5 - 2e-9, read)
    await gen.sleep(200)
    assert request.future.result() == Reply([], [])
    assert desk.expired == []


def hold_up(io_loop: VirtualTimeLoop, seconds: float) -> None:
    """What a callback does that blocks for so long: nothing, while the clock goes on."""
    io_loop._clock.advance(seconds)


def test_an_interrupt_loses_nobody(io_loop: VirtualTimeLoop) -> None:
    """An expiry can run a user's callbacks (a link that is renewed); a KeyboardInterrupt there goes through."""
    desk = Desk(io_loop)

    def on_expire(future: Any) -> None:
        if len(desk.expired) == 1:
            raise KeyboardInterrupt

    desk.on_expire = on_expire  # type: ignore[method-assign]
    first, second = desk.request(5), desk.request(5)
    with pytest.raises(KeyboardInterrupt):
        io_loop.start()
    io_loop.call_later(10, io_loop.stop)
    io_loop.start()
    assert isinstance(first.future.exception(), RequestTimeout)
    assert second.done(), "its deadline has passed long ago"
