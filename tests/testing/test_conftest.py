"""Our own conftest: the traps that it must not let pass, and what it must let pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
ROOT = CONFTEST.parents[1]

HEAD = """
import asyncio, logging
import pytest
from tornado import gen
from tornado.concurrent import Future
from katcp_tornado.testing import VirtualTimeLoop

"""


def run(folder: Any, body: Any) -> Any:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(HEAD + body)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


TRAPS = """
@pytest.mark.gen_test
@gen.coroutine
def test_coroutine():
    yield gen.sleep(1)

@pytest.mark.gen_test
async def test_generator():
    yield gen.sleep(1)

class TestIt:
    async def test_unmarked(self):
        await gen.sleep(1)

@pytest.mark.gen_test
async def test_good():
    await gen.sleep(1)
"""


def test_traps_are_rejected(tmp_path: Path) -> None:
    result = run(tmp_path, TRAPS)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_coroutine: gen_test on a gen.coroutine" in result.stderr
    assert "test_it.py::test_generator: gen_test on an async generator" in result.stderr
    assert "test_it.py::TestIt::test_unmarked: an asynchronous test needs @pytest.mark.gen_test" in result.stderr
    assert "test_good" not in result.stderr


BAD = """
@pytest.mark.gen_test
async def test_callback(io_loop):
    io_loop.add_callback(lambda: 1 / 0)
    await gen.sleep(1)

@pytest.mark.gen_test
async def test_asyncio_callback(io_loop):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await gen.sleep(1)

@pytest.mark.gen_test
async def test_never_retrieved(io_loop):
    Future().set_exception(ValueError("unseen"))

@pytest.mark.gen_test
async def test_failed_task(io_loop):
    async def fail():
        raise ValueError("unseen")
    asyncio.ensure_future(fail())
    await gen.sleep(1)

@pytest.mark.gen_test
async def test_left_task(io_loop):
    io_loop.left = asyncio.ensure_future(asyncio.sleep(3600))

@pytest.mark.gen_test
async def test_error_after_the_end(io_loop):
    io_loop.add_callback(io_loop.add_callback, lambda: 1 / 0)

@pytest.mark.gen_test
async def test_tornado_logs(io_loop):
    logging.getLogger("tornado.general").error("oh no")

def test_no_loop():
    logging.getLogger("asyncio").error("oh no")

@pytest.mark.gen_test
async def test_device(device):
    device.report(ValueError("oh no"))
"""

GOOD = """
@pytest.mark.gen_test
async def test_katcp_error(io_loop):
    logging.getLogger("katcp_tornado").error("expected")

@pytest.mark.gen_test
async def test_tornado_warning(io_loop):
    logging.getLogger("tornado.general").warning("harmless")

@pytest.mark.gen_test
async def test_expected(io_loop, loop_errors):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await gen.sleep(1)
    assert "ZeroDivisionError" in loop_errors[0]
    loop_errors.clear()

@pytest.mark.gen_test
async def test_an_hour_is_no_timeout(io_loop):
    assert isinstance(io_loop, VirtualTimeLoop)
    await gen.sleep(3600)

@pytest.mark.gen_test
def test_generator(io_loop):
    yield gen.sleep(3600)
    assert io_loop.now == 3600

@pytest.mark.real_time
@pytest.mark.gen_test
async def test_real_time(io_loop):
    assert not isinstance(io_loop, VirtualTimeLoop)
    io_loop.call_later(0.001, lambda: None)
    await gen.sleep(0.002)

@pytest.mark.gen_test
async def test_device_listens(device):
    assert device.running

@pytest.mark.xfail(strict=True, raises=RuntimeError)
@pytest.mark.gen_test
async def test_waits_for_nothing(io_loop):
    await Future()

@pytest.mark.xfail(strict=True)
@pytest.mark.gen_test(timeout=5)
async def test_own_timeout(io_loop):
    await gen.sleep(6)
"""


def test_errors_of_the_loop_fail_the_test(tmp_path: Path) -> None:
    result = run(tmp_path, BAD)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    for name in BAD.split("def ")[1:]:
        if name.startswith("test_"):
            assert f"ERROR test_it.py::{name.split('(')[0]}" in result.stdout, result.stdout


def test_everything_else_passes(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD)
    assert result.returncode == pytest.ExitCode.OK, result.stdout
    assert "7 passed, 2 xfailed" in result.stdout
