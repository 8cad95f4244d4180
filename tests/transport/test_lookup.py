"""Look-ups: one at a time for a host, in a thread that nobody waits for, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import katcp_tornado
from katcp_tornado.testing import VirtualTimeLoop
from katcp_tornado.transport import lookup

V4 = (int(socket.AF_INET), ("192.0.2.1", 0))
V6 = (int(socket.AF_INET6), ("2001:db8::1", 0, 0, 0))
PATIENCE = 20  # real seconds that nothing here takes


class Names:
    """The system's resolver: it hangs until it is told what to say."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.threads: list[Any] = []
        self.came = threading.Semaphore(0)
        self.gates: dict[Any, Any] = {}

    def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        self.asked.append(host)
        self.threads.append(threading.current_thread())
        event, answer = self.gates.setdefault(host, (threading.Event(), []))
        self.came.release()
        assert event.wait(PATIENCE)
        (found,) = answer
        if isinstance(found, BaseException):
            raise found
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]

    def say(self, host: Any, found: Any) -> None:
        event, answer = self.gates.setdefault(host, (threading.Event(), []))
        answer.append(found)
        event.set()

    def wait_asked(self) -> None:
        assert self.came.acquire(timeout=PATIENCE)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    for event, answer in names.gates.values():
        answer.append([V4])
        event.set()
    for thread in names.threads:
        thread.join(PATIENCE)
    assert lookup.outstanding() == 0


class Asker:
    """Who wants an answer."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.answer = io_loop.asyncio_loop.create_future()
        self.calls = 0

    def __call__(self, addresses: Any, error: Any) -> None:
        self.calls += 1
        assert threading.current_thread() is threading.main_thread()
        if not self.answer.done():
            self.answer.set_result((addresses, error))

    def ask(self, host: Any) -> Any:
        lookup.start(self.io_loop, host, self)
        return self


async def answers(io_loop: VirtualTimeLoop, *askers: Any) -> Any:
    with io_loop.real_time():
        return [await asyncio.wait_for(asker.answer, PATIENCE) for asker in askers]


@pytest.mark.gen_test
async def test_the_answer_comes_on_the_loop(io_loop: VirtualTimeLoop, names: Any) -> None:
    asker = Asker(io_loop).ask("device.example")
    names.wait_asked()
    assert asker.calls == 0
    names.say("device.example", [V6, V4])
    assert await answers(io_loop, asker) == [([V6, V4], None)]
    assert names.threads[0] is not threading.main_thread()


@pytest.mark.gen_test
async def test_nobody_waits_for_the_thread(io_loop: VirtualTimeLoop, names: Any) -> None:
    Asker(io_loop).ask("device.example")
    names.wait_asked()
    assert names.threads[0].daemon
    assert "device.example" in names.threads[0].name


@pytest.mark.gen_test
async def test_one_at_a_time_for_a_host(io_loop: VirtualTimeLoop, names: Any) -> None:
    askers = [Asker(io_loop).ask("device.example") for _ in range(50)]
    names.wait_asked()
    assert lookup.outstanding() == 1
    assert threading.active_count() <= 1 + len(names.threads) + 1
    names.say("device.example", [V4])
    assert await answers(io_loop, *askers) == [([V4], None)] * 50
    assert names.asked == ["device.example"]
    assert lookup.outstanding() == 0


@pytest.mark.gen_test
async def test_a_host_that_hangs_starves_no_other(io_loop: VirtualTimeLoop, names: Any) -> None:
    hung = Asker(io_loop).ask("hung.example")
    others = [Asker(io_loop).ask(f"other{i}.example") for i in range(40)]
    for i in range(40):
        names.say(f"other{i}.example", [V4])
    assert await answers(io_loop, *others) == [([V4], None)] * 40
    assert hung.calls == 0
    assert lookup.outstanding() == 1


@pytest.mark.gen_test
async def test_answers_are_not_kept(io_loop: VirtualTimeLoop, names: Any) -> None:
    names.say("device.example", [V4])
    assert await answers(io_loop, Asker(io_loop).ask("device.example")) == [([V4], None)]
    names.gates.clear()
    names.say("device.example", [V6])
    assert await answers(io_loop, Asker(io_loop).ask("device.example")) == [([V6], None)]
    assert names.asked == ["device.example"] * 2


@pytest.mark.gen_test
async def test_forget(io_loop: VirtualTimeLoop, names: Any) -> None:
    kept, forgotten, late = Asker(io_loop), Asker(io_loop), Asker(io_loop)
    kept.ask("device.example")
    forgotten.ask("device.example")
    lookup.forget("device.example", forgotten)
    lookup.forget("device.example", late)  # never asked
    lookup.forget("unheard-of.example", late)
    names.say("device.example", [V4])
    await answers(io_loop, kept)
    await io_loop.idle()
    assert (kept.calls, forgotten.calls, late.calls) == (1, 0, 0)


@pytest.mark.gen_test
async def test_a_look_up_that_everybody_has_forgotten_is_still_the_only_one(
    io_loop: VirtualTimeLoop, names: Any
) -> None:
    """Attempt after attempt on a name server that hangs: one thread is stuck, not a hundred."""
    for _ in range(100):
        asker = Asker(io_loop).ask("hung.example")
        lookup.forget("hung.example", asker)
    last = Asker(io_loop).ask("hung.example")
    names.wait_asked()
    assert names.asked == ["hung.example"]
    names.say("hung.example", [V4])
    assert await answers(io_loop, last) == [([V4], None)]


@pytest.mark.gen_test
async def test_one_of_many_loops_may_be_closed_meanwhile(io_loop: VirtualTimeLoop, names: Any) -> None:
    others = [VirtualTimeLoop(make_current=False) for _ in range(2)]
    gone = [Asker(other).ask("device.example") for other in others]
    kept = Asker(io_loop).ask("device.example")
    for other in others:
        other.close()
    names.say("device.example", [V4])
    assert await answers(io_loop, kept) == [([V4], None)]
    assert [asker.calls for asker in gone] == [0, 0]


# Errors


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError("much"),
    ],
)
async def test_errors_of_the_system_are_passed_on(io_loop: VirtualTimeLoop, names: Any, error: Any) -> None:
    names.say("device.example", error)
    assert await answers(io_loop, Asker(io_loop).ask("device.example")) == [([], error)]


BAD = ["foo..bar", ".foo", "x" * 64 + ".example", "a\x00b", "\ud800.example", "\u2024\u2024"]


@pytest.mark.gen_test
@pytest.mark.parametrize("host", BAD, ids=ascii)
async def test_a_host_that_cannot_be_one_does_not_exist(io_loop: VirtualTimeLoop, host: Any) -> None:
    """R19: the UnicodeError of IDNA is a failed look-up like any other."""
    assert lookup.numeric(host, 80) == []
    ((addresses, error),) = await answers(io_loop, Asker(io_loop).ask(host))
    assert addresses == []
    assert type(error) is socket.gaierror
    assert error.errno == socket.EAI_NONAME
    assert isinstance(error.__cause__, ValueError) or "not known" in str(error)


def test_other_errors_are_left_alone() -> None:
    for error in (OSError(5, "x"), socket.gaierror(1, "x"), TypeError("x"), KeyError("x")):
        assert lookup.as_os_error(error) is error
    mapped = lookup.as_os_error(UnicodeError("label too long"))
    assert isinstance(mapped, socket.gaierror) and "label too long" in str(mapped)


@pytest.mark.gen_test
async def test_no_more_threads(io_loop: VirtualTimeLoop, names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_start(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_start)
    asker = Asker(io_loop)
    asker.ask("device.example")
    assert asker.calls == 0  # never before start() has returned
    await io_loop.idle()
    addresses, error = asker.answer.result()
    assert addresses == [] and isinstance(error, OSError) and error.errno == errno.EAGAIN
    assert lookup.outstanding() == 0


# Numeric hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", (int(socket.AF_INET), ("127.0.0.1", 7147))),
        ("::1", (int(socket.AF_INET6), ("::1", 7147, 0, 0))),
    ],
)
def test_numeric_hosts_need_no_look_up(host: str, expected: Any) -> None:
    assert lookup.numeric(host, 7147) == [expected]


@pytest.mark.parametrize("host", ["localhost", "device.example", "1.2.3.4.5", "[::1]", *BAD], ids=ascii)
def test_names_are_not_numeric(host: Any) -> None:
    assert lookup.numeric(host, 7147) == []


def test_names_are_not_looked_up_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags_: int = 0, **more: Any
    ) -> None:
        flags.append(more.get("flags", flags_))
        raise socket.gaierror(socket.EAI_NONAME, "a name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert lookup.numeric("device.example", 7147) == []
    assert flags == [socket.AI_NUMERICHOST]


@pytest.mark.gen_test
@pytest.mark.real_time
async def test_the_real_localhost(io_loop: VirtualTimeLoop) -> None:
    asker = Asker(io_loop).ask("localhost")
    addresses, error = await asker.answer
    assert error is None
    assert {host for _, (host, *_) in addresses} <= {"127.0.0.1", "::1"}
    assert all(port == 0 for _, (_, port, *_) in addresses)
    assert len(set(addresses)) == len(addresses) >= 1


# In a process of its own


def run(code: Any, *, timeout: int = 60) -> Any:
    """Run the code in a fresh interpreter; returns what it has printed, in lines."""
    root = str(Path(katcp_tornado.__file__).parent.parent)
    prelude = f"import sys; sys.path.insert(0, {root!r})\n"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prelude + textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("host", ["localhost", "device.invalid"])
def test_out_of_descriptors_is_not_an_unknown_name(host: str) -> None:
    """R17: the C library says "Name or service not known" when it cannot open a file."""
    lines = run(f"""
        import asyncio, errno, os, resource
        from tornado.ioloop import IOLoop
        from katcp_tornado.transport import lookup

        asyncio.set_event_loop(asyncio.new_event_loop())
        io_loop = IOLoop.current()
        def done(addresses, error):
            print(addresses, type(error).__name__, errno.errorcode.get(error.errno))
            io_loop.stop()
        lowest = os.dup(0)
        os.close(lowest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        lookup.start(io_loop, {host!r}, done)
        io_loop.start()
    """)
    assert lines == ["[] OSError EMFILE"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_a_client_out_of_descriptors_recovers() -> None:
    """F29: the cause is EMFILE, and when there are descriptors again the very next attempt is an ordinary one."""
    lines = run("""
        import asyncio, errno, os, resource
        from katcp_tornado import Backoff, Client
        from katcp_tornado.testing import FakeDevice

        async def main():
            with FakeDevice() as device:
                lowest = os.dup(0)
                os.close(lowest)
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
                backoff = Backoff(first=0.01, maximum=0.01, minimum=0.01)
                for host in ("127.0.0.1", "localhost"):
                    failed = asyncio.get_running_loop().create_future()
                    def note(exc):
                        if not failed.done():
                            failed.set_result(exc)
                    client = Client(host, device.port, backoff=backoff)
                    client.add_failed_connect_callback(note)
                    print(errno.errorcode.get((await failed).errno), await failed)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    await client.wait_connected()
                    print(client.state)
                    client.close()
                    await client.wait_closed()
                    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        asyncio.run(main())
    """)
    assert lines == ["EMFILE [Errno 24] Too many open files", "State.CONNECTED"] * 2


def test_a_hung_look_up_does_not_hold_up_the_end() -> None:
    """R11: the interpreter exits although a look-up hangs."""
    lines = run(
        """
        import asyncio, socket, threading, time
        from tornado.ioloop import IOLoop
        from katcp_tornado.transport import lookup

        asked = threading.Event()
        def getaddrinfo(*args, **kwargs):
            asked.set()
            time.sleep(1000)
        socket.getaddrinfo = getaddrinfo
        asyncio.set_event_loop(asyncio.new_event_loop())
        lookup.start(IOLoop.current(), "hung.example", print)
        asked.wait(20)
        print("the end")
        """,
        timeout=30,
    )
    assert lines == ["the end"]


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="needs fork")
def test_a_forked_process_starts_afresh() -> None:
    """The look-up that hangs in the parent is not waited for in the child, nor is its lock."""
    lines = run("""
        import asyncio, os, socket, threading, time
        from tornado.ioloop import IOLoop
        from katcp_tornado.transport import lookup

        real, asked = socket.getaddrinfo, threading.Event()
        def hang(*args, **kwargs):
            asked.set()
            time.sleep(1000)
        socket.getaddrinfo = hang
        asyncio.set_event_loop(asyncio.new_event_loop())
        lookup.start(IOLoop.current(), "localhost", print)
        assert asked.wait(20)
        lookup._lock.acquire()  # another thread may hold it at the moment of the fork
        child = os.fork()
        if child:
            lookup._lock.release()
            assert os.waitpid(child, 0)[1] == 0
            print("parent", lookup.outstanding())
        else:
            socket.getaddrinfo = real
            asyncio.set_event_loop(asyncio.new_event_loop())
            io_loop = IOLoop.current()
            def done(addresses, error):
                print("child", sorted({host for _, (host, *_) in addresses})[0] in ("127.0.0.1", "::1"), error)
                io_loop.stop()
            lookup.start(io_loop, "localhost", done)
            io_loop.call_later(20, io_loop.stop)
            io_loop.start()
            sys.stdout.flush()
            os._exit(0)
    """)
    assert lines == ["child True None", "parent 1"]
