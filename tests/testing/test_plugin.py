"""The plugin for pytest, as a user has it: with pytest-tornado, and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = 'pytest_plugins = ["katcp_tornado.testing.plugin"]\n'
TORNADO = "pytest_tornado.plugin"
INI = r"""[pytest]
addopts = --strict-markers
filterwarnings =
    error
    ignore:pkg_resources is deprecated as an API
    ignore:The hookimpl pytest_\w+ uses old-style configuration
"""
HEAD = """
import asyncio
import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from katcp_tornado import Client
from katcp_tornado.testing import FakeDevice, FaultProxy, VirtualTimeLoop

"""


def run(folder: Any, body: Any, *options: Any, conftest: Any = CONFTEST) -> Any:
    (folder / "conftest.py").write_text(conftest)
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_it.py").write_text(HEAD + body)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options, "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def outcomes(result: Any) -> Any:
    """The tests, each with PASSED, FAILED or ERROR; the last one counts."""
    found = {}
    for line in result.stdout.partition("short test summary info")[2].splitlines():
        word, _, rest = line.partition(" ")
        if rest.startswith("test_it.py::"):
            found[rest.split()[0].removeprefix("test_it.py::")] = word
    return found


PLAIN = """
def test_device_and_proxy(io_loop, katcp_device, katcp_proxy):
    async def test():
        assert katcp_device.running and katcp_proxy.running
        async with Client(katcp_proxy.host, katcp_proxy.port) as client:
            await client.wait_connected()
            await client.request("watchdog")
        assert katcp_proxy.accepted == katcp_device.accepted == 1

    io_loop.run_sync(test)

def test_time_jumps(io_loop):
    assert isinstance(io_loop, VirtualTimeLoop) and IOLoop.current() is io_loop
    io_loop.run_sync(lambda: gen.sleep(3600))
    assert io_loop.now == 3600

@pytest.mark.real_time
def test_real_time(io_loop, katcp_proxy):
    assert not isinstance(io_loop, VirtualTimeLoop) and IOLoop.current() is io_loop
    client = Client(katcp_proxy.host, katcp_proxy.port)
    io_loop.run_sync(lambda: client.wait_connected(timeout=30))
    client.close()

def test_expected(io_loop, loop_errors):
    io_loop.add_callback(lambda: 1 / 0)
    io_loop.run_sync(lambda: gen.sleep(1))
    assert "ZeroDivisionError" in loop_errors[0] or "Exception in callback" in loop_errors[0]
    loop_errors.clear()

class TestOwnDevice:
    @pytest.fixture
    def katcp_device(self, io_loop):
        with FakeDevice("4") as device:
            yield device

    def test_it(self, io_loop, katcp_device, katcp_proxy):
        client = Client(katcp_proxy.host, katcp_proxy.port)
        io_loop.run_sync(client.wait_connected)
        assert client.protocol.major == 4
        client.close()
"""

BAD = """
def test_callback(io_loop):
    io_loop.add_callback(lambda: 1 / 0)
    io_loop.run_sync(lambda: gen.sleep(1))

def test_asyncio_callback(io_loop):
    io_loop.asyncio_loop.call_soon(lambda: 1 / 0)
    io_loop.run_sync(lambda: gen.sleep(1))

def test_after_the_end(io_loop):
    io_loop.add_callback(io_loop.add_callback, lambda: 1 / 0)

def test_task(io_loop):
    io_loop.left = io_loop.asyncio_loop.create_task(asyncio.sleep(3600))

def test_handler_of_the_device(io_loop, katcp_device):
    katcp_device.add_request("bad", lambda context, message: 1 / 0)
    client = Client(katcp_device.host, katcp_device.port)
    io_loop.run_sync(lambda: client.request_raw("bad", wait_connected=True))
    client.close()
"""

FOR_EVER = """
def test_nothing_will_happen(io_loop):
    io_loop.run_sync(asyncio.Event().wait)

def test_the_horizon(io_loop):
    async def tick():
        while True:
            await gen.sleep(60)

    io_loop.run_sync(tick)
"""

UNTOUCHED = """
import logging

def test_no_loop():
    logging.getLogger("asyncio").error("what tests without a loop do is their own affair")
"""

GEN_TEST = """
@pytest.mark.gen_test
async def test_await(io_loop, katcp_proxy):
    await gen.sleep(3600)
    assert io_loop.now == 3600

@pytest.mark.gen_test
def test_yield(io_loop, katcp_proxy):
    yield gen.sleep(3600)
    assert io_loop.now == 3600

@pytest.mark.gen_test
async def test_no_fixture():
    assert isinstance(IOLoop.current(), VirtualTimeLoop)
    await gen.sleep(3600)

@pytest.mark.gen_test(timeout=5)
async def test_own_timeout():
    with pytest.raises(asyncio.CancelledError):
        await gen.sleep(6)
    raise RuntimeError("cancelled")

class TestOwnLoop:
    @pytest.fixture
    def io_loop(self):
        asyncio.set_event_loop(asyncio.new_event_loop())
        yield IOLoop.current()
        IOLoop.current().close(all_fds=True)
        asyncio.set_event_loop(None)

    @pytest.mark.gen_test
    async def test_it(self, io_loop):
        assert not isinstance(io_loop, VirtualTimeLoop)
        await gen.sleep(0.001)
"""


@pytest.mark.parametrize("options", [["-p", TORNADO], []], ids=["with pytest-tornado", "without"])
def test_plain_tests(tmp_path: Path, options: Any) -> None:
    result = run(tmp_path, PLAIN + BAD + FOR_EVER + UNTOUCHED, *options)
    found = outcomes(result)
    assert found == {
        "test_device_and_proxy": "PASSED",
        "test_time_jumps": "PASSED",
        "test_real_time": "PASSED",
        "test_expected": "PASSED",
        "TestOwnDevice::test_it": "PASSED",
        "test_callback": "ERROR",
        "test_asyncio_callback": "ERROR",
        "test_after_the_end": "ERROR",
        "test_task": "ERROR",
        "test_handler_of_the_device": "ERROR",
        "test_nothing_will_happen": "FAILED",
        "test_the_horizon": "FAILED",
        "test_no_loop": "PASSED",
    }, result.stdout
    assert "nothing will ever happen" in result.stdout
    assert "a task was left on the loop" in result.stdout


def test_gen_test(tmp_path: Path) -> None:
    result = run(tmp_path, GEN_TEST, "-p", TORNADO)
    assert outcomes(result) == {
        "test_await": "PASSED",
        "test_yield": "PASSED",
        "test_no_fixture": "PASSED",
        "test_own_timeout": "FAILED",
        "TestOwnLoop::test_it": "PASSED",
    }, result.stdout


def test_it_is_not_there_unless_asked_for(tmp_path: Path) -> None:
    result = run(tmp_path, "def test_it(katcp_device): pass\n", conftest="")
    assert "fixture 'katcp_device' not found" in result.stdout


def test_a_task_that_never_rests_fails_its_test(tmp_path: Path) -> None:
    """And does not hang the teardown."""
    body = """
def test_busy(io_loop):
    async def busy():
        while True:
            await asyncio.sleep(0)

    async def test():
        asyncio.ensure_future(busy())

    io_loop.run_sync(test)
"""
    result = run(tmp_path, body)
    assert outcomes(result) == {"test_busy": "ERROR"}
    assert "a task was left on the loop" in result.stdout


def test_a_loop_of_somebody_else(tmp_path: Path) -> None:
    """A test on a loop of its own, as of pytest-asyncio, is told so; the loop of before is current again afterwards."""
    body = """
async def test_wrong_loop(katcp_device):
    async with Client(katcp_device.host, katcp_device.port) as client:
        await client.wait_connected(timeout=5)

async def test_device_inside():
    with FakeDevice() as device:
        async with Client(device.host, device.port) as client:
            await client.wait_connected(timeout=5)

@pytest.fixture
def loop_of_ours():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    assert asyncio.get_event_loop_policy()._local._loop is loop
    asyncio.set_event_loop(None)
    loop.close()

def test_before_and_after(loop_of_ours, katcp_device):
    assert IOLoop.current() is katcp_device.io_loop
"""
    runner = """
import asyncio, inspect

def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        names = inspect.signature(pyfuncitem.obj).parameters
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True
"""
    result = run(tmp_path, body, conftest=runner + CONFTEST)
    assert outcomes(result) == {
        "test_wrong_loop": "ERROR",
        "test_device_inside": "PASSED",
        "test_before_and_after": "PASSED",
    }, result.stdout
    assert "a loop that this test does not run on" in result.stdout
