"""Who is told, in which order, and what a listener that misbehaves does to the others: nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
import weakref
from collections.abc import Generator
from typing import Any
from unittest import mock

import pytest
from tornado import gen

from katcp_tornado import Client, Message, State
from katcp_tornado.connection.callbacks import Callbacks
from katcp_tornado.connection.events import Event
from katcp_tornado.testing import Behaviour, FakeDevice, Reset, VirtualTimeLoop

UP = Event(State.NEGOTIATING, State.CONNECTED, "connected")
DOWN = Event(State.CONNECTED, State.SLEEPING, "disconnected")
FAILED = Event(State.CONNECTING, State.SLEEPING, "failed_connect", (OSError("no"),))
BEGUN = Event(State.SLEEPING, State.CONNECTING, None)


def no_misfit(raw: Any, callback: Any, error: Any) -> None:
    raise AssertionError(f"{raw} does not fit {callback}: {error}")


def tell(listeners: Any, event: Any) -> None:
    for callback, args in listeners.calls(event):
        listeners.call(callback, *args)


@pytest.fixture
def listeners(io_loop: VirtualTimeLoop) -> Any:
    return Callbacks(io_loop.asyncio_loop, no_misfit)


@pytest.fixture
def log() -> Any:
    return []


def tell_inform(listeners: Any, name: Any, *args: Any, major: int = 5) -> None:
    raw = Message.inform(name, *args)._raw
    for callback in listeners.informs[major].get(name.encode(), ()):
        callback(raw)


def errors(caplog: pytest.LogCaptureFixture) -> Any:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# Who hears what


def test_the_order_of_registration_and_state_listeners_first(listeners: Any, log: Any) -> None:
    listeners.add("connected", lambda: log.append(1))
    listeners.add("state", lambda old, new: log.append((old, new)))
    listeners.add("connected", lambda: log.append(2))
    listeners.add("state", lambda old, new: log.append("state"))
    listeners.add("connected", lambda: log.append(3))
    tell(listeners, UP)
    assert log == [(State.NEGOTIATING, State.CONNECTED), "state", 1, 2, 3]


def test_each_kind_hears_of_its_own(listeners: Any, log: Any) -> None:
    for kind in ("connected", "disconnected", "failed_connect"):
        listeners.add(kind, lambda *args, kind=kind: log.append((kind, args)))
    for event in (UP, DOWN, FAILED, BEGUN):
        tell(listeners, event)
    assert log == [("connected", ()), ("disconnected", ()), ("failed_connect", FAILED.args)]


def test_state_listeners_hear_of_all(listeners: Any, log: Any) -> None:
    listeners.add("state", lambda *args: log.append(args))
    for event in (UP, DOWN, FAILED, BEGUN):
        tell(listeners, event)
    assert log == [(event.old, event.new) for event in (UP, DOWN, FAILED, BEGUN)]


def test_the_same_callback_twice(listeners: Any, log: Any) -> None:
    def callback() -> None:
        log.append("called")

    listeners.add("connected", callback)
    listeners.add("connected", callback)
    tell(listeners, UP)
    assert log == ["called"] * 2
    listeners.remove("connected", callback)
    tell(listeners, UP)
    assert log == ["called"] * 3
    listeners.remove("connected", callback)
    tell(listeners, UP)
    assert log == ["called"] * 3


def test_removal_takes_the_first_of_two(listeners: Any, log: Any) -> None:
    def one() -> None:
        log.append("one")

    for callback in (one, lambda: log.append("between"), one):
        listeners.add("connected", callback)
    listeners.remove("connected", one)
    tell(listeners, UP)
    assert log == ["between", "one"]


def test_a_bound_method_can_be_removed(listeners: Any, log: Any) -> None:
    listeners.add("connected", log.clear)
    listeners.remove("connected", log.clear)  # another object, but equal
    listeners.add_inform("it", log.append)
    listeners.remove_inform("it", log.append)
    log.append("kept")
    tell(listeners, UP)
    tell_inform(listeners, "it")
    assert log == ["kept"]


@pytest.mark.parametrize("kind", ["connected", "disconnected", "failed_connect", "state"])
def test_removal_of_what_was_never_added(listeners: Any, kind: str) -> None:
    def callback(*args: Any) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=f"is no {kind} callback"):
        listeners.remove(kind, callback)
    listeners.add("connected" if kind == "state" else "state", callback)
    with pytest.raises(ValueError, match=f"is no {kind} callback"):
        listeners.remove(kind, callback)
    listeners.add(kind, callback)
    listeners.remove(kind, callback)
    with pytest.raises(ValueError, match=f"is no {kind} callback"):
        listeners.remove(kind, callback)


def test_removal_of_an_inform_callback_that_was_never_added(listeners: Any, log: Any) -> None:
    with pytest.raises(ValueError, match="is no callback of #it"):
        listeners.remove_inform("it", log.append)
    listeners.add_inform("other", log.append)
    with pytest.raises(ValueError, match="is no callback of #it"):
        listeners.remove_inform("it", log.append)
    listeners.add_inform("it", log.append)
    listeners.remove_inform("it", log.append)
    with pytest.raises(ValueError, match="is no callback of #it"):
        listeners.remove_inform("it", log.append)
    tell_inform(listeners, "other")
    assert len(log) == 1


def test_nothing_is_kept_of_what_was_removed(listeners: Any, log: Any) -> None:
    for _ in range(100):
        listeners.add_inform("it", log.append)
        listeners.remove_inform("it", log.append)
        listeners.add("connected", log.clear)
        listeners.remove("connected", log.clear)
    assert listeners.informs == {4: {}, 5: {}}
    assert listeners._informs == {}
    assert not any(listeners._kinds.values())


@pytest.mark.parametrize("wrong", [None, "callback", 5, []])
def test_callbacks_are_callable(listeners: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match="callback must be callable"):
        listeners.add("connected", wrong)
    with pytest.raises(TypeError, match="callback must be callable"):
        listeners.add_inform("it", wrong)


@pytest.mark.parametrize("name", ["", "two words", "1", "#it", "it\n"])
def test_inform_names_are_checked(listeners: Any, log: Any, name: str) -> None:
    for method in (listeners.add_inform, listeners.remove_inform):
        with pytest.raises(ValueError):
            method(name, log.append)


def test_a_callback_that_could_never_be_called_is_not_kept(listeners: Any) -> None:
    def unknown(a: object, b: object) -> None:
        raise AssertionError

    with pytest.raises(TypeError):
        listeners.add_inform("it", unknown)
    assert listeners.informs == {4: {}, 5: {}}
    with pytest.raises(ValueError, match="is no callback"):
        listeners.remove_inform("it", unknown)


def test_informs_by_name_in_order(listeners: Any, log: Any) -> None:
    listeners.add_inform("it", lambda message: log.append(("first", message.name)))
    listeners.add_inform("other", lambda message: log.append(("other", message.name)))
    listeners.add_inform("it", lambda message: log.append(("second", message.name)))
    for major in (4, 5):
        log.clear()
        tell_inform(listeners, "it", major=major)
        assert log == [("first", "it"), ("second", "it")]
        tell_inform(listeners, "nobody", major=major)
        assert len(log) == 2


def test_the_right_inform_callback_is_removed(listeners: Any, log: Any) -> None:
    callbacks = [lambda message, i=i: log.append(i) for i in range(5)]
    # with one parameter more they would be called with arguments; partials of one function are all different
    callbacks = [lambda *args, i=i: log.append(i) for i in range(5)]
    for callback in callbacks:
        listeners.add_inform("it", callback)
    listeners.remove_inform("it", callbacks[3])
    listeners.remove_inform("it", callbacks[0])
    for major in (4, 5):
        log.clear()
        tell_inform(listeners, "it", major=major)
        assert log == [1, 2, 4]


# A snapshot


def test_what_is_added_or_removed_meanwhile_counts_the_next_time(listeners: Any, log: Any) -> None:
    def added() -> None:
        log.append("added")

    def removed() -> None:
        log.append("removed")

    def first() -> None:
        log.append("first")
        listeners.remove("connected", first)
        listeners.remove("connected", removed)
        listeners.add("connected", added)

    listeners.add("connected", first)
    listeners.add("connected", removed)
    tell(listeners, UP)
    assert log == ["first", "removed"]
    tell(listeners, UP)
    assert log == ["first", "removed", "added"]


def test_a_state_listener_changes_the_specific_ones_the_next_time(listeners: Any, log: Any) -> None:
    """The snapshot is of the event, not of one of its lists."""

    def specific() -> None:
        log.append("specific")

    def state(old: Any, new: Any) -> None:
        listeners.remove("connected", specific)

    listeners.add("state", state)
    listeners.add("connected", specific)
    tell(listeners, UP)
    assert log == ["specific"]


def test_the_same_for_informs(listeners: Any, log: Any) -> None:
    def removed(message: Message) -> None:
        log.append("removed")

    def first(message: Message) -> None:
        log.append("first")
        listeners.remove_inform("it", first)
        listeners.remove_inform("it", removed)
        listeners.add_inform("it", lambda message: log.append("added"))

    listeners.add_inform("it", first)
    listeners.add_inform("it", removed)
    tell_inform(listeners, "it")
    assert log == ["first", "removed"]
    tell_inform(listeners, "it")
    assert log == ["first", "removed", "added"]


# One that raises


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError(), OSError("mine"), StopIteration()])
def test_one_that_raises_is_logged_and_the_others_hear(
    listeners: Any, log: Any, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    def bad(*args: Any) -> None:
        raise error

    listeners.add("state", bad)
    listeners.add("state", lambda *args: log.append("state"))
    listeners.add("connected", bad)
    listeners.add("connected", lambda: log.append("connected"))
    tell(listeners, UP)
    assert log == ["state", "connected"]
    assert [record.exc_info[1] for record in errors(caplog)] == [error] * 2
    assert all(record.name == "katcp_tornado" and "bad" in record.message for record in errors(caplog))


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError(), OSError("mine")])
def test_an_inform_callback_that_raises(listeners: Any, log: Any, caplog: pytest.LogCaptureFixture, error: Any) -> None:
    def bad(message: Message) -> None:
        raise error

    listeners.add_inform("it", bad)
    listeners.add_inform("it", log.append)
    tell_inform(listeners, "it", 5)
    assert log == [Message.inform("it", 5)]
    (record,) = errors(caplog)
    assert record.exc_info[1] is error
    assert "bad" in record.message and "#it" in record.message


def test_a_callback_with_the_wrong_number_of_parameters_is_logged_too(
    listeners: Any, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listeners.add("connected", lambda one, too, many: None)
    listeners.add("connected", lambda: log.append("connected"))
    tell(listeners, UP)
    assert log == ["connected"]
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_after_the_step(io_loop: VirtualTimeLoop, listeners: Any, log: Any, error: Any) -> None:
    def interrupt(*args: Any) -> None:
        raise error

    for callback in (interrupt, lambda *args: log.append("next")):
        listeners.add("connected", callback)
        listeners.add_inform("it", callback)
    tell(listeners, UP)
    tell_inform(listeners, "it")
    assert log == ["next", "next"]
    for _ in range(2):
        with pytest.raises(error):
            io_loop.start()


def test_any_other_exception_is_logged(listeners: Any, log: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As that of a test framework, which is no Exception."""

    class Odd(BaseException):
        pass

    def odd(*args: Any) -> None:
        raise Odd

    for callback in (odd, lambda *args: log.append("next")):
        listeners.add("connected", callback)
        listeners.add_inform("it", callback)
    tell(listeners, UP)
    tell_inform(listeners, "it")
    assert log == ["next", "next"]
    assert caplog.text.count("Exception in callback") == 2 and "Odd" in caplog.text


# Awaitables


@pytest.mark.gen_test
async def test_an_awaitable_is_run_and_holds_nothing_up(io_loop: VirtualTimeLoop, listeners: Any, log: Any) -> None:
    async def slow(*args: Any) -> None:
        log.append("slow begins")
        await gen.sleep(100)
        log.append("slow ends")

    listeners.add("connected", slow)
    listeners.add("connected", lambda: log.append("next"))
    listeners.add_inform("it", slow)
    tell(listeners, UP)
    assert log == ["next"]
    tell_inform(listeners, "it")
    await io_loop.idle()
    assert log == ["next", "slow begins", "slow begins"]
    gc.collect()  # nobody but the library holds the tasks
    await gen.sleep(200)
    assert log[3:] == ["slow ends"] * 2
    assert not listeners._tasks


@pytest.mark.gen_test
async def test_a_task_that_nobody_holds_is_not_collected(io_loop: VirtualTimeLoop, listeners: Any, log: Any) -> None:
    async def lonely() -> None:
        future = io_loop.asyncio_loop.create_future()  # held by this coroutine only, and by what waits for it
        log.append(weakref.ref(future))
        await future
        log.append("the end")

    listeners.add("connected", lonely)
    tell(listeners, UP)
    await io_loop.idle()
    gc.collect()
    assert log[0]() is not None
    log[0]().set_result(None)
    await io_loop.idle()
    assert log[1:] == ["the end"]


@pytest.mark.gen_test
async def test_the_exception_of_an_awaitable_is_logged(
    io_loop: VirtualTimeLoop, listeners: Any, caplog: pytest.LogCaptureFixture, loop_errors: Any
) -> None:
    error = ValueError("mine")

    async def bad(*args: Any) -> None:
        await gen.sleep(1)
        raise error

    @gen.coroutine
    def old(*args: Any) -> Generator[Any, Any, Any]:
        yield gen.sleep(1)
        raise error

    def future(*args: Any) -> Any:
        future = io_loop.asyncio_loop.create_future()
        io_loop.call_later(1, future.set_exception, error)
        return future

    for callback in (bad, old, future):
        caplog.clear()
        listeners.add("connected", callback)
        listeners.add_inform("it", callback)
        tell(listeners, UP)
        tell_inform(listeners, "it")
        await gen.sleep(2)
        assert [record.exc_info[1] for record in errors(caplog)] == [error] * 2
        assert all(callback.__name__ in record.message for record in errors(caplog))
        listeners.remove("connected", callback)
        listeners.remove_inform("it", callback)
    gc.collect()
    assert loop_errors == []


@pytest.mark.gen_test
async def test_a_task_that_is_cancelled_is_no_error(
    io_loop: VirtualTimeLoop, listeners: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = []

    def callback() -> Any:
        task = asyncio.ensure_future(gen.sleep(100))
        tasks.append(task)
        return task

    async def gives_up() -> None:
        raise asyncio.CancelledError

    listeners.add("connected", callback)
    listeners.add("connected", gives_up)
    tell(listeners, UP)
    tasks[0].cancel()
    await io_loop.idle()
    assert not listeners._tasks
    assert errors(caplog) == []


@pytest.mark.parametrize("result", [None, 5, "text", [], object(), mock.MagicMock(), iter([])])
def test_what_is_no_awaitable_is_dropped(
    listeners: Any, log: Any, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    listeners.add("connected", lambda: result)
    listeners.add("connected", lambda: log.append("next"))
    tell(listeners, UP)
    assert log == ["next"]
    assert not listeners._tasks
    assert errors(caplog) == []


@pytest.mark.gen_test
async def test_mocks_of_coroutines_are_awaited(io_loop: VirtualTimeLoop, listeners: Any) -> None:
    connected, state = mock.AsyncMock(), mock.AsyncMock()
    listeners.add("connected", connected)
    listeners.add("state", state)
    tell(listeners, UP)
    await io_loop.idle()
    connected.assert_awaited_once_with()
    state.assert_awaited_once_with(State.NEGOTIATING, State.CONNECTED)


def test_an_awaitable_of_another_loop_disturbs_nobody(
    io_loop: VirtualTimeLoop, listeners: Any, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with what a callback returns is as wrong as what it raises."""
    elsewhere = asyncio.new_event_loop()
    foreign = elsewhere.create_future()
    listeners.add("state", lambda old, new: foreign)
    listeners.add("connected", lambda: foreign)
    listeners.add("connected", lambda: log.append("connected"))
    listeners.add_inform("it", lambda message: foreign)
    listeners.add_inform("it", lambda message: log.append("it"))
    try:
        tell(listeners, UP)
        tell_inform(listeners, "it")
    finally:
        elsewhere.close()
    assert log == ["connected", "it"]
    assert len(errors(caplog)) == 3


def test_an_awaitable_on_a_closed_loop_disturbs_nobody(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Client.close() tells its listeners also when its loop was closed before it."""
    io_loop = VirtualTimeLoop()
    listeners = Callbacks(io_loop.asyncio_loop, no_misfit)
    io_loop.close()

    async def callback() -> None:
        raise AssertionError("nothing runs on a closed loop")

    listeners.add("disconnected", callback)
    listeners.add("disconnected", lambda: log.append("next"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tell(listeners, DOWN)
        gc.collect()
    assert log == ["next"]
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []
    assert errors(caplog) == []


# Through a client


@pytest.mark.gen_test
async def test_close_neither_cancels_a_task_nor_waits_for_it(
    io_loop: VirtualTimeLoop, device: FakeDevice, log: Any
) -> None:
    async def slow() -> None:
        await gen.sleep(1000)
        log.append(client.state)

    client = Client(device.host, device.port)
    client.add_connected_callback(slow)
    await client.wait_connected()
    client.close()
    await client.wait_closed()
    assert io_loop.now == 0
    await gen.sleep(2000)
    assert log == [State.CLOSED]


@pytest.mark.parametrize("kind", ["state", "connected"])
def test_after_an_interrupt_everybody_still_hears(
    io_loop: VirtualTimeLoop, device: FakeDevice, log: Any, kind: str
) -> None:
    """A listener raises KeyboardInterrupt, which leaves the loop; who starts the loop again finds all in order."""
    interrupted: list[Any] = []

    def interrupt(*args: Any) -> None:
        if client.is_connected and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    client = Client(device.host, device.port)
    getattr(client, f"add_{kind}_callback")(interrupt)
    client.add_state_callback(lambda old, new: log.append((old, new)))
    client.add_connected_callback(lambda: log.append("connected"))
    client.add_disconnected_callback(lambda: log.append("disconnected"))
    with pytest.raises(KeyboardInterrupt):
        io_loop.start()
    io_loop.run_sync(lambda: client.request("echo", 5, wait_connected=True))
    client.close()
    # Whatever has become of the link, each listener has heard of every step, and in order.
    moves = [entry for entry in log if isinstance(entry, tuple)]
    assert moves[0][0] is State.CONNECTING and moves[-1][1] is State.CLOSED
    assert [old for old, _ in moves[1:]] == [new for _, new in moves[:-1]]
    specific = [entry for entry in log if isinstance(entry, str)]
    assert specific == ["connected", "disconnected"] * (len(specific) // 2)


@pytest.mark.parametrize("auto_reconnect", [True, False])
def test_after_an_interrupt_everybody_still_wakes(
    io_loop: VirtualTimeLoop, device: FakeDevice, log: Any, auto_reconnect: bool
) -> None:
    """The same while the client is being closed, or has made its only attempt: no waiter is forgotten."""
    device.behaviour = Behaviour() if auto_reconnect else Reset()

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    client = Client(device.host, device.port, auto_reconnect=auto_reconnect)
    client.add_disconnected_callback(interrupt)
    client.add_failed_connect_callback(interrupt)
    client.add_disconnected_callback(lambda: log.append("told"))
    client.add_failed_connect_callback(lambda exc: log.append("told"))
    if auto_reconnect:
        io_loop.run_sync(client.wait_connected)
    waiters = [client.wait_closed(), client.wait_inform("it")] + [client.wait_disconnected()] * auto_reconnect
    if auto_reconnect:
        client.close()
    with pytest.raises(KeyboardInterrupt):
        io_loop.start()
    assert client.state is State.CLOSED and not isinstance(client.last_exc, KeyboardInterrupt)
    io_loop.call_later(1, io_loop.stop)
    io_loop.start()
    assert [waiter.done() for waiter in waiters] == [True] * len(waiters)  # type: ignore[attr-defined]
    assert log == ["told"]


def test_an_interrupt_in_an_inform_callback_leaves_the_link_as_it_is(
    io_loop: VirtualTimeLoop, device: FakeDevice, log: Any
) -> None:
    interrupted: list[Any] = []

    def interrupt(message: Message) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    client = Client(device.host, device.port)
    client.add_inform_callback("tick", interrupt)
    client.add_disconnected_callback(lambda: log.append(type(client.last_exc)))
    io_loop.run_sync(client.wait_connected)
    device.inform_all("tick")
    with pytest.raises(KeyboardInterrupt):
        io_loop.start()
    assert log == [] and client.is_connected
    device.inform_all("tick")
    assert io_loop.run_sync(lambda: client.wait_inform("tick")) == Message.inform("tick")
    client.close()


@pytest.mark.gen_test
async def test_callbacks_run_in_the_thread_of_the_loop(device: FakeDevice, log: Any) -> None:
    async with Client(device.host, device.port) as client:
        client.add_state_callback(lambda old, new: log.append(threading.get_ident()))
        await client.wait_connected()
    assert set(log) == {threading.get_ident()}
    assert len(log) == 3


# The library's own handlers


def test_handlers_of_informs_come_first(listeners: Any, log: Any) -> None:
    listeners.add_inform("tick", lambda message: log.append("user"))
    listeners.add_inform_handler("tick", lambda raw: log.append(raw.arguments))
    listeners.add_inform_handler("tick", lambda raw: log.append("second"))
    for major in (4, 5):
        tell_inform(listeners, "tick", b"1", major=major)
    assert log == [[b"1"], "second", "user"] * 2


def test_handlers_stay_when_the_users_callbacks_go(listeners: Any, log: Any) -> None:
    def callback(message: Message) -> None:
        log.append("user")

    listeners.add_inform_handler("tick", lambda raw: log.append("own"))
    listeners.add_inform("tick", callback)
    listeners.remove_inform("tick", callback)
    tell_inform(listeners, "tick")
    assert log == ["own"]
    with pytest.raises(ValueError, match="#tick"):
        listeners.remove_inform("tick", callback)


def test_nothing_is_left_of_callbacks_that_were_removed(listeners: Any, log: Any) -> None:
    listeners.add_inform("tick", log.append)
    listeners.remove_inform("tick", log.append)
    assert listeners.informs == {4: {}, 5: {}}
