"""What the commands share."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from katcp_tornado.cli.terminal import ExitCode, run


def test_ctrl_c_waits_until_a_callback_is_over() -> None:
    reached = []

    async def command(output: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        reached.append("the end of this callback")
        try:
            await asyncio.sleep(60)
        finally:
            reached.append("the way out")

    with pytest.raises(SystemExit) as caught:
        run(command)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.INTERRUPTED
    assert reached == ["the end of this callback", "the way out"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def ignored() -> Iterator[Any]:
    """As for what a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_is_ignored_stays_ignored(ignored: Any) -> None:
    async def command(output: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        for _ in range(5):
            await asyncio.sleep(0)
        return ExitCode.OK

    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == ExitCode.OK
