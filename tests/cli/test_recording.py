"""katcp-tornado record and replay: a recording plays the device again to any client."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Optional

import pytest

from katcp_tornado import Client, FailReply, InvalidReply, SensorWatcher
from katcp_tornado.cli.recording import acts, record, replay
from katcp_tornado.cli.targets import HostPort, Target
from katcp_tornado.cli.terminal import ExitCode
from katcp_tornado.testing import FakeDevice

ANY = HostPort("127.0.0.1", 0)


async def listening(capsys: Any) -> int:
    """The port that a command says it listens on."""
    told = ""
    for _ in range(1000):
        told += capsys.readouterr().err
        match = re.search(r"listens on 127\.0\.0\.1:(\d+)", told)
        if match:
            return int(match[1])
        await asyncio.sleep(0.01)
    raise AssertionError(told)


async def end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def talk(port: int) -> tuple[Any, ...]:
    """A session of a client: what it sees of the device."""
    async with Client("127.0.0.1", port) as client:
        await client.wait_connected(timeout=10)
        watcher = SensorWatcher(client)
        client.add_sensor_watcher(watcher)
        await watcher.synced(timeout=10)
        readings = {name: sensor.reading for name, sensor in watcher.sensors.items()}
        reply = await client.request("echo", b"a b\xff\x00")
        refusal: Optional[str] = None
        try:
            await client.request("sensor-value", "nothing")
        except FailReply as exc:
            refusal = str(exc)
        return readings, reply.arguments, refusal, str(client.protocol)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_what_was_recorded_is_played(
    device: FakeDevice, output: Any, capsys: Any, tmp_path: Path, protocol: str
) -> None:
    device.protocol = protocol
    device.add_sensor("a", "integer", 5)
    device.add_sensor("b", "string", "t \xfc")
    path = str(tmp_path / "recording.jsonl")
    task = asyncio.ensure_future(record(Target(HostPort(device.host, device.port), {}), path, ANY, output))
    first = await talk(await listening(capsys))
    await end(task)
    entries = [json.loads(line) for line in Path(path).read_text().splitlines()]  # noqa: ASYNC240
    assert entries[0]["katcp"] == 1 and [entry["time"] for entry in entries] == sorted(e["time"] for e in entries)
    device.stop()
    task = asyncio.ensure_future(replay(path, ANY, 10.0, output))
    port = await listening(capsys)
    assert await talk(port) == first
    assert await talk(port) == first, "again and again"
    async with Client("127.0.0.1", port) as client:
        await client.wait_connected()
        with pytest.raises(InvalidReply, match="not in the recording"):
            await client.request("echo", "something else")
    await end(task)


@pytest.mark.gen_test
async def test_files_that_cannot_be(device: FakeDevice, output: Any, capsys: Any, tmp_path: Path) -> None:
    target = Target(HostPort(device.host, device.port), {})
    there = tmp_path / "there"
    there.write_text("x")
    for path in (there, tmp_path / "no" / "folder"):
        assert await record(target, str(path), ANY, output) == ExitCode.USAGE
    assert there.read_text() == "x", "nothing is overwritten"
    for text in ("", "x", "[]", '{"katcp": 2}\n', '{"katcp": 1}\nx\n{}\n', "\x00"):
        there.write_text(text)
        if text:
            assert await replay(str(there), ANY, 1.0, output) == ExitCode.USAGE
    assert capsys.readouterr().err.count("\n") == 7


def test_a_recording_that_is_cut(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "cut"
    line = {"time": 1, "client": 1, "from": "client", "line": "?help[1]"}
    path.write_text('{"katcp": 1, "time": 0}\n' + json.dumps(line) + '\n{"time": 2, "cli')
    assert len(acts(str(path))) == 2
    assert "the last line is cut" in capsys.readouterr().err


def test_an_empty_file_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="no recording"):
        acts(str(tmp_path / "empty"))
