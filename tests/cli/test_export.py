"""katcp-tornado export: the metrics of devices, asked for by HTTP, and by a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port

from katcp_tornado.cli.export import export
from katcp_tornado.cli.targets import HostPort, Target
from katcp_tornado.cli.terminal import ExitCode
from katcp_tornado.testing import FakeDevice, Silent

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Exporter:
    """The command, running on this loop."""

    def __init__(self, devices: dict[str, FakeDevice], *allow: str) -> None:
        self.port = free_port()
        targets = {name: Target(HostPort(one.host, one.port), {}) for name, one in devices.items()}
        listen = HostPort("127.0.0.1", self.port)
        self.task = asyncio.ensure_future(export(targets, {}, allow, 300.0, listen))

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """The status, and the text, of a page."""
        url = f"http://127.0.0.1:{self.port}{path}"
        response = await AsyncHTTPClient().fetch(url, raise_error=False, headers=headers, request_timeout=60)
        return response.code, response.body.decode()

    async def __aenter__(self) -> Exporter:
        await asyncio.sleep(0)  # it listens from its first step on
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    device.add_sensor("temperature", "float", 21.5)
    return device


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_pages(device: FakeDevice) -> None:
    address = f"{device.host}:{device.port}"
    async with Exporter({"m000": device}, f"{device.host}:{device.port}") as exporter:
        assert (await exporter.get("/"))[0] == 200
        code, text = await exporter.get("/metrics")
        assert code == 200 and 'katcp_client_connected{device="m000"} 1.0' in text
        code, text = await exporter.get(f"/probe?target={address}")
        assert code == 200 and "probe_success 1.0" in text
        assert f'katcp_sensor_value{{device="{address}",sensor="temperature"}} 21.5' in text
        for refused in ("127.0.0.1:22", f"{address}0", f"x{address}", "", "m000\n"):
            assert (await exporter.get(f"/probe?target={quote(refused)}"))[0] == 403, refused
        assert (await exporter.get("/probe"))[0] == 400


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_a_device_that_is_away_is_an_answer_in_time(device: FakeDevice) -> None:
    device.behaviour = Silent()
    async with Exporter({}, ".*:[0-9]+") as exporter:
        began = time.monotonic()
        scrape = {"X-Prometheus-Scrape-Timeout-Seconds": "1.5"}
        code, text = await exporter.get(f"/probe?target={device.host}:{device.port}", **scrape)
        assert code == 200 and "probe_success 0.0" in text and "} 0.0" in text
        assert time.monotonic() - began < 1.5
        for odd in ("nan", "-1", "-inf"):
            scrape = {"X-Prometheus-Scrape-Timeout-Seconds": odd}
            assert (await exporter.get(f"/probe?target={device.host}:{device.port}", **scrape))[0] == 200


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_a_port_that_is_taken(io_loop: Any, capsys: Any) -> None:
    sock, port = bind_unused_port()
    with contextlib.closing(sock):
        assert await export({}, {}, [".*"], 300.0, HostPort("127.0.0.1", port)) == ExitCode.USAGE
    assert "cannot listen on" in capsys.readouterr().err


# Prometheus


class Prometheus:
    """A Prometheus that scrapes an exporter every second."""

    def __init__(self, folder: Path, exporter: Exporter, targets: list[str]) -> None:
        text = (EXAMPLES / "prometheus.yml").read_text()
        text = text.replace('["10.0.0.1:7147", "10.0.0.2:7147"]', json.dumps(targets)).replace("10s", "1s")
        text = text.replace("127.0.0.1:10747", f"127.0.0.1:{exporter.port}")
        (folder / "prometheus.yml").write_text(text)
        self.folder = folder
        self.port = free_port()

    async def __aenter__(self) -> Prometheus:
        self.process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        self.process.terminate()
        await self.process.wait()

    async def query(self, expression: str) -> list[Any]:
        """The values of an expression now."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?query={quote(expression)}"
        response = await AsyncHTTPClient().fetch(url, raise_error=False)
        answer = json.loads(response.body)
        assert answer["status"] == "success", answer
        return [float(one["value"][1]) for one in answer["data"]["result"]]

    async def until(self, expression: str, values: list[float]) -> None:
        """Wait until an expression has these values."""
        found: Any = None
        for _ in range(200):
            with contextlib.suppress(OSError, ValueError):  # it begins to answer before it is ready
                found = await self.query(expression)
                if found == values:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{expression} is {found}, not {values}")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no Prometheus here")
@pytest.mark.real_time
@pytest.mark.gen_test(timeout=120)
async def test_a_restart_in_prometheus(device: FakeDevice, tmp_path: Path) -> None:
    target = f"{device.host}:{device.port}"
    async with Exporter({}, ".*") as exporter, Prometheus(tmp_path, exporter, [target]) as prometheus:
        value = f'katcp_sensor_value{{instance="{target}",sensor="temperature"}}'
        await prometheus.until(value, [21.5])
        await prometheus.until("up", [1.0])
        await prometheus.until("katcp_client_connected", [1.0])
        device.stop()
        await prometheus.until("katcp_client_connected", [0.0])
        await prometheus.until(value, [])
        assert await prometheus.query("up") == [1.0], "the exporter is there, and says that the device is not"
        device.start()
        device.set_sensor("temperature", 22.5)
        await prometheus.until(value, [22.5])
        await prometheus.until("katcp_client_disconnects_total", [1.0])
        dashboard = json.loads((EXAMPLES / "grafana.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        assert len(expressions) == 8
        for expression in expressions:
            await prometheus.query(expression)
