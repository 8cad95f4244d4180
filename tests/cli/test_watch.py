"""katcp-tornado sensors --watch on a terminal; what a device's death does to it stands in test_pty.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from katcp_tornado import Backoff, Client
from katcp_tornado.cli.targets import HostPort, Target
from katcp_tornado.testing import FakeDevice

pytest.importorskip("textual", reason="textual is not installed")

from katcp_tornado.cli.watch import WatchApp, Watcher

pytestmark = pytest.mark.real_time


class Screen:
    """An application, and what stands on its screen."""

    def __init__(self, app: WatchApp, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip()[:width] for strip in strips[:height]]

    def row(self, name: str) -> str:
        return next((line for line in self.lines if line.startswith(name)), "")

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(400):
            if condition():
                return
            await self.pilot.pause(0.05)
        raise AssertionError("\n".join(self.lines))


@asynccontextmanager
async def screen(device: FakeDevice, size: tuple[int, int] = (80, 24), *names: str) -> AsyncIterator[Screen]:
    async with Client(device.host, device.port, backoff=Backoff(first=0.5, maximum=0.5)) as client:
        watcher = Watcher(client)
        client.add_sensor_watcher(watcher)
        app = WatchApp(Target(HostPort(device.host, device.port), {}), client, watcher, names)
        async with app.run_test(size=size) as pilot:
            yield Screen(app, pilot)


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    device.add_sensor("b.temperature", "float", 21.5, "of the receiver", "degC")
    device.add_sensor("a.mode", "discrete", "off", params=["off", "on"])
    device.add_sensor("c.odd", "string", "[bold]\x1b[31mred")
    device.set_sensor("c.odd", "[bold]\x1b[31mred", "warn")
    return device


@pytest.mark.gen_test
async def test_values_go_grey_with_the_device_and_come_back(device: FakeDevice) -> None:
    async with screen(device) as seen:
        await seen.until(lambda: "21.5 degC" in seen.row("b.temperature"))
        assert "connected" in seen.lines[0] and "3 sensors" in seen.lines[0]
        assert "nominal" in seen.row("b.temperature") and "of the receiver" in seen.row("b.temperature")
        device.stop()
        await seen.until(lambda: "unreachable" in seen.row("b.temperature"))
        assert "21.5 degC" in seen.row("b.temperature"), "the last value that is known stays"
        await seen.until(lambda: "next attempt in" in seen.lines[0] and "refused" in seen.lines[1])
        device.set_sensor("b.temperature", 22.5)
        device.start()
        await seen.until(lambda: "22.5 degC" in seen.row("b.temperature"))
        assert "nominal" in seen.row("b.temperature") and "connected" in seen.lines[0]


@pytest.mark.gen_test
async def test_a_device_writes_no_markup_and_no_escapes(device: FakeDevice) -> None:
    async with screen(device, (120, 24)) as seen:
        await seen.until(lambda: r"[bold]\x1b[…" in seen.row("c.odd"))
        assert not any("\x1b" in line for line in seen.lines)


@pytest.mark.gen_test
async def test_filter_and_sort(device: FakeDevice) -> None:
    async with screen(device) as seen:
        await seen.until(lambda: "warn" in seen.row("c.odd"))

        def order() -> list[str]:
            return [line.split()[0] for line in seen.lines if line[:2] in ("a.", "b.", "c.")]

        assert order() == ["a.mode", "b.temperature", "c.odd"]
        await seen.pilot.press("s")
        await seen.until(lambda: order() == ["c.odd", "a.mode", "b.temperature"])
        await seen.until(lambda: "by status" in seen.lines[0])
        await seen.pilot.press("slash", *"^b|q", "enter")
        await seen.until(lambda: order() == ["b.temperature"])
        await seen.until(lambda: "1 of 3 sensors" in seen.lines[0])
        device.add_sensor("b.new", "integer", 5)
        device.inform_all("interface-changed")
        await seen.until(lambda: order() == ["b.new", "b.temperature"])
        await seen.pilot.press("escape")
        await seen.until(lambda: len(order()) == 4)
        await seen.pilot.press("q")
        await seen.until(lambda: seen.app.return_value is True)


@pytest.mark.parametrize("size", [(40, 10), (10, 6), (3, 2)])
@pytest.mark.gen_test
async def test_narrow(device: FakeDevice, size: tuple[int, int]) -> None:
    async with screen(device, size, "missing") as seen:
        await asyncio.wait_for(seen.app._watcher.synced(), 20)
        await seen.until(lambda: seen.app._order)
        if size[0] == 40:
            await seen.until(lambda: seen.row("b.temperature").endswith(" 21.5 degC nominal"))
            await seen.until(lambda: any("no sensor missing" in line for line in seen.lines))
