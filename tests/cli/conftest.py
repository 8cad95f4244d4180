"""The command as a process of its own, and its parts in this one."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from katcp_tornado.cli.terminal import Output

LAUNCHER = """
from katcp_tornado.cli import main
main()
"""


@pytest.fixture
def environment() -> Any:
    """That of a process that decides by itself about colours and widths."""
    unwanted = {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


@pytest.fixture
def start(environment: Any) -> Iterator[Any]:
    """Starts ``katcp-tornado`` with the given arguments, warnings being errors."""
    started = []

    async def start(*args: Any, stdin: int = asyncio.subprocess.DEVNULL) -> Any:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", LAUNCHER, *args),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()


@pytest.fixture
def invoke(start: Any) -> Any:
    """Runs it to its end: exit code, standard output, standard error."""

    async def invoke(*args: Any) -> Any:
        process = await start(*args)
        stdout, stderr = await process.communicate()
        return process.returncode, stdout.decode("ascii"), stderr.decode("ascii")

    return invoke


class Written(io.StringIO):
    """A standard output that can be a terminal, and can break."""

    def __init__(self) -> None:
        super().__init__()
        self.terminal = False
        self.breaks = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> Any:
        return self.terminal

    def flush(self) -> None:
        if self.breaks is not None:
            raise self.breaks


@pytest.fixture
def written() -> Any:
    return Written()


@pytest.fixture
def output(written: Any) -> Any:
    def failed() -> None:
        raise AssertionError("the output has failed")

    return Output(written, failed)
