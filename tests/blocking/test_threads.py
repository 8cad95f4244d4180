"""Threads that call while another closes, signal handlers, Ctrl-C, callbacks that end the thread: nothing hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from blocking_tools import TIMEOUT, Interruption, Served, in_thread, left_behind

import katcp_tornado
from katcp_tornado import Client, ClientClosed, NotConnected, State
from katcp_tornado.blocking import BlockingClient, runner

#: Files in which a signal may come while a thread is inside one of the client's calls.
OURS = ("blocking/client.py", "blocking/runner.py", "blocking/calls.py", "blocking/own_loop.py", "blocking/face.py")
FUTURES = ("concurrent/futures/_base.py", "threading.py")

LIBRARY = Path(katcp_tornado.__file__).parent


def connected(served: Served) -> BlockingClient:
    return BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)


def unsettled(client: BlockingClient) -> list[Any]:
    session = client.client._link.session
    assert session is not None
    return [entry for entry in session.pending() if not entry.done()]


def test_many_threads(client: BlockingClient) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: client.request("echo", number).arguments, range(100)))
    assert replies == [[b"%d" % number] for number in range(100)]


def call(client: BlockingClient) -> Any:
    return client.call(int)


def request(client: BlockingClient) -> Any:
    return client.request("echo", "a").arguments


def submit(client: BlockingClient) -> Any:
    return client.submit(int).result()


def wait(client: BlockingClient) -> Any:
    error = client.submit(int).exception()
    if error is not None:
        raise error


def cancel(client: BlockingClient) -> Any:
    client.submit(asyncio.sleep, 60).cancel()


@pytest.mark.parametrize("act", [call, request, submit, wait, cancel])
def test_close_in_a_signal_handler_anywhere_in_a_call(served: Served, act: Callable[[BlockingClient], Any]) -> None:
    expected = in_thread(lambda: _closed_at(served, act, 10**6))
    for n in range(10**6):
        interruption, found = in_thread(partial(_interrupted, served, act, n, BlockingClient.close))
        if not interruption.reached:
            assert n > 20
            break
        assert found is ClientClosed or found == expected, interruption.where


def _closed_at(served: Served, act: Callable[[BlockingClient], Any], n: int) -> Any:
    return _interrupted(served, act, n, BlockingClient.close)[1]


def _interrupted(
    served: Served,
    act: Callable[[BlockingClient], Any],
    n: int,
    handler: Callable[[BlockingClient], Any],
    files: tuple[str, ...] = OURS + FUTURES,
) -> tuple[Interruption, Any]:
    client = connected(served) if act is request else BlockingClient("127.0.0.1", served.port)
    interruption = Interruption(files, n, lambda: handler(client))
    try:
        found = interruption.run(lambda: act(client))
    except ClientClosed as exc:
        found = type(exc) if type(exc) is not ClientClosed else ClientClosed
        if isinstance(exc, NotConnected):
            found = ClientClosed
    client.close()
    assert not client._runner._thread.is_alive()  # type: ignore[attr-defined]
    return interruption, found


@pytest.mark.parametrize("act", [submit, wait])
def test_a_call_in_a_signal_handler_anywhere_in_a_call(served: Served, act: Callable[[BlockingClient], Any]) -> None:
    """Also while the thread holds the condition of a Future that the loop is about to settle."""
    for n in range(10**6):
        interruption, found = in_thread(partial(_interrupted, served, act, n, lambda client: client.call(_long)))
        if not interruption.reached:
            assert n > 20
            break
        assert found in (0, None), interruption.where


async def _long() -> None:
    for _ in range(3):  # other callbacks have their turn
        await asyncio.sleep(0)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals")
def test_interrupted(client: BlockingClient, served: Served) -> None:
    asked = served.stall("echo")
    main = threading.get_ident()

    def interrupt() -> None:
        asked.it_was.wait(TIMEOUT)
        signal.pthread_kill(main, signal.SIGINT)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.request("echo")
    assert client.request("help").arguments
    assert client.call(unsettled, client) == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # where Ctrl-C comes when all is made
def test_ctrl_c_anywhere_in_the_constructor() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = left_behind()
    for n in range(10**6):
        interruption = Interruption(OURS, n, interrupt, waits=True)
        try:
            interruption.run(lambda: BlockingClient("127.0.0.1", 1)).close()
        except KeyboardInterrupt:
            pass
        if not interruption.reached:
            assert n > 20
            break
        for thread in threading.enumerate():
            if thread.name == "katcp_tornado":
                thread.join(TIMEOUT)
        gc.collect()
        assert left_behind() == before, interruption.where


def test_what_a_function_raises_comes_to_the_caller(client: BlockingClient) -> None:
    """Also what is no Exception, of which asyncio would only tell its log."""
    for error in (ZeroDivisionError("a"), asyncio.CancelledError("b"), GeneratorExit("c")):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error), match=str(error)):
            client.call(fail)


def test_a_coroutine_that_close_ends(served: Served) -> None:
    client = connected(served)
    started = threading.Event()

    async def for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.call, for_ever)
        assert started.wait(TIMEOUT)
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(TIMEOUT)


def test_a_subclass_that_cannot_be_shown_is_closed_when_it_is_collected(served: Served) -> None:
    class Odd(BlockingClient):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    clients = [Odd.connect("127.0.0.1", served.port, timeout=TIMEOUT)]
    thread = clients[0]._runner._thread  # type: ignore[attr-defined]
    with pytest.warns(ResourceWarning, match=r"unclosed <.*Odd object"):
        clients.clear()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_collected_where_warnings_are_errors(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    clients = [connected(served)]
    thread = clients[0]._runner._thread  # type: ignore[attr-defined]
    clients.clear()  # in this suite, warnings are errors
    assert [entry.exc_type for entry in ignored] == [ResourceWarning]
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_submit(client: BlockingClient, served: Served) -> None:
    assert client.submit(client.client.request, "echo", "a").result(TIMEOUT).arguments == [b"a"]
    assert client.submit(lambda: 7).result(TIMEOUT) == 7
    asked = served.stall("echo")
    waiting = client.submit(client.client.request, "echo")
    assert asked.it_was.wait(TIMEOUT)
    with pytest.raises(concurrent.futures.TimeoutError):
        waiting.result(0.001)
    assert waiting.cancel() and waiting.cancelled()
    assert client.call(unsettled, client) == []


def test_a_submitted_future_is_not_waited_for_on_the_loop(client: BlockingClient) -> None:
    def wait() -> Any:
        return client.submit(int).result()

    with pytest.raises(RuntimeError, match="own thread"):
        client.call(wait)


def test_errors_have_a_short_traceback(client: BlockingClient) -> None:
    """What IPython shows: the frames that are not hidden; a hidden one costs nothing."""
    with pytest.raises(Exception, match="no") as caught:
        client.request("fail", "no")
    frames = [entry for entry in caught.traceback if LIBRARY in Path(entry.path).parents]
    assert 1 <= len(frames) <= 5 and all(entry.frame.f_locals.get("__tracebackhide__") for entry in frames)

    def mine() -> None:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError) as mistake:
        client.call(mine)
    assert mistake.traceback[-1].name == "mine"


def test_a_client_made_by_the_loop_is_closed_with_it(served: Served) -> None:
    """The constructor was interrupted after its client had been made."""
    made: list[Client] = []
    client = BlockingClient("127.0.0.1", served.port)
    made.append(client.client)
    del client.client
    client.close()
    assert made[0].state is State.CLOSED


def test_a_future_that_another_thread_holds_at_the_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler does that interrupts ``done()``: the loop's thread waits until the condition is free."""
    client = connected(served)
    tried = threading.Event()
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=lambda _: tried.set()))
    future = client.submit(asyncio.sleep, 3600)
    with future._condition:
        client.close()
        assert tried.wait(TIMEOUT)
    with pytest.raises(ClientClosed):
        future.result(TIMEOUT)
    client.close()
