"""katcp-tornado sensors, wait, log and ping."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from tornado import gen

from katcp_tornado.cli import targets
from katcp_tornado.cli.log import log
from katcp_tornado.cli.ping import ping
from katcp_tornado.cli.sensors import How, follow, sensors, wait
from katcp_tornado.cli.targets import HostPort, Target
from katcp_tornado.cli.terminal import ExitCode
from katcp_tornado.testing import Answer, Drop, FakeDevice, Reset, Silent


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    device.add_sensor("temperature", "float", 21.5, "of the receiver", "degC")
    device.add_sensor("mode", "discrete", "off", params=["off", "on"])
    device.add_sensor("odd", "string", "\x1b[31mred")
    return device


@pytest.fixture
def target(device: FakeDevice) -> Target:
    return Target(HostPort(device.host, device.port), {})


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 7147)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]", ("::1", 7147)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("m000", ("192.168.1.10", 7150)),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, text: str, address: Any) -> None:
    (tmp_path / "katcp-tornado.toml").write_text('[devices]\nm000 = "192.168.1.10:7150"\n')
    monkeypatch.setattr(targets, "config_file", lambda: tmp_path / "katcp-tornado.toml")
    assert targets.find(text) == address
    monkeypatch.setenv("KATCP_SERVER", text)
    assert targets.find(None) == targets.find("-") == address


@pytest.mark.parametrize("text", ["::1", "a b", "http://x", "x:0", "x:65536", "[", "[::1]x"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST|port|host"):
        targets.find(text)


def test_a_configuration_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    path = tmp_path / "katcp-tornado.toml"
    monkeypatch.setattr(targets, "config_file", lambda: path)
    for text in ("[devices", "devices = 5", "[devices]\nm000 = 5"):
        path.write_text(text)
        with pytest.raises(ValueError, match="katcp-tornado.toml"):
            targets.find("m000")


# Sensors


@pytest.mark.gen_test
async def test_lines(target: Target, output: Any, written: Any) -> None:
    assert await sensors(target, (), How(), 10, output) == ExitCode.OK
    assert written.getvalue().splitlines() == [
        "mode\tnominal\toff\t",
        "odd\tnominal\t\\x1b[31mred\t",
        "temperature\tnominal\t21.5\tdegC",
    ]


@pytest.mark.gen_test
async def test_json(target: Target, output: Any, written: Any) -> None:
    assert await sensors(target, ("/^t/", "mode"), How(json=True), 10, output) == ExitCode.OK
    mode, temperature = map(json.loads, written.getvalue().splitlines())
    assert temperature["timestamp"] > 0
    assert {**temperature, "timestamp": 0} == {
        "name": "temperature",
        "type": "float",
        "units": "degC",
        "description": "of the receiver",
        "params": [],
        "status": "nominal",
        "value": 21.5,
        "timestamp": 0,
    }
    assert mode["value"] == "off" and mode["params"] == ["off", "on"]


@pytest.mark.gen_test
async def test_bare_values(target: Target, output: Any, written: Any) -> None:
    assert await sensors(target, ("temperature",), How(value=True), 10, output) == ExitCode.OK
    assert written.getvalue() == "21.5\n"


@pytest.mark.gen_test
async def test_raw(device: FakeDevice, target: Target, output: Any, written: Any) -> None:
    """The lines of the device, as they came."""
    device.add_sensor("text", "string", "two words", timestamp=1.5)
    written.terminal = True
    assert await sensors(target, ("/^te/", "text"), How(raw=True), 10, output) == ExitCode.OK
    temperature, text = written.getvalue().splitlines()
    assert re.fullmatch(r"#sensor-value\[\d+\] 1\.5 1 text nominal two\\_words", text)
    assert temperature.endswith(" 1 temperature nominal 21.5")
    assert await follow(target, ("text",), How(raw=True, most=1), 10, output) == ExitCode.OK
    assert written.getvalue().splitlines()[2:] == ["#sensor-status 1.5 1 text nominal two\\_words"]


@pytest.mark.gen_test
async def test_a_sensor_that_is_not_there(target: Target, output: Any, capsys: Any) -> None:
    assert await sensors(target, ("temperatur",), How(), 10, output) == ExitCode.REFUSED
    assert capsys.readouterr().err.endswith("the device has no sensor 'temperatur'; there is temperature\n")
    with pytest.raises(ValueError, match="regular expression"):
        await sensors(target, ("/(/",), How(), 10, output)


@pytest.mark.parametrize(("fault", "code"), [("away", ExitCode.NO_CONNECTION), ("silent", ExitCode.TIMEOUT)])
@pytest.mark.gen_test
async def test_no_answer(device: FakeDevice, target: Target, output: Any, capsys: Any, fault: str, code: Any) -> None:
    if fault == "away":
        device.stop()
    else:
        device.on_request("sensor-list", Silent(), always=True)
    assert await sensors(target, (), How(), 10, output) == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.gen_test
async def test_watch_of_what_the_device_refuses(target: Target, output: Any, written: Any, capsys: Any) -> None:
    assert await follow(target, ("temperatur",), How(), 10, output) == ExitCode.REFUSED
    assert capsys.readouterr().err.endswith("the device has no sensor 'temperatur'\n")
    assert await follow(target, ("mode",), How(strategy="nonesuch"), 1, output) == ExitCode.REFUSED
    assert "FailReply" in capsys.readouterr().err and written.getvalue() == ""


@pytest.mark.gen_test
async def test_watch_ends_without_a_word(target: Target, output: Any, written: Any, capsys: Any) -> None:
    task = asyncio.ensure_future(follow(target, ("mode",), How(value=True), 10, output))
    await gen.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (written.getvalue(), capsys.readouterr().err) == ("off\n", "")


@pytest.mark.gen_test
async def test_watch(device: FakeDevice, target: Target, output: Any, written: Any, capsys: Any) -> None:
    how = How(json=True, strategy="event", most=4)
    task = asyncio.ensure_future(follow(target, ("temperature",), how, 10, output))
    await gen.sleep(1)
    device.set_sensor("temperature", 22.5)
    await gen.sleep(1)
    device.drop_all()
    assert await task == ExitCode.OK
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(one["status"], one["value"]) for one in found] == [
        ("nominal", 21.5),
        ("nominal", 22.5),
        ("unreachable", None),
        ("nominal", 22.5),
    ]
    complaints = capsys.readouterr().err
    assert "the link was lost" in complaints and "connected again after" in complaints


@pytest.mark.parametrize("text", ["25", "25.0", ">24", "=25", "!=21.5", ">=25"])
@pytest.mark.gen_test
async def test_wait(io_loop: Any, device: FakeDevice, target: Target, output: Any, text: str) -> None:
    task = asyncio.ensure_future(wait(target, "temperature", text, 10, output))
    await gen.sleep(1)
    device.set_sensor("temperature", 25, "failure")
    await gen.sleep(1)
    assert not task.done(), "a value that is not valid does not count"
    device.set_sensor("temperature", 25)
    assert await task == ExitCode.OK


@pytest.mark.gen_test
async def test_wait_ends(target: Target, output: Any, written: Any, capsys: Any) -> None:
    assert await wait(target, "mode", "on", 2, output) == ExitCode.TIMEOUT
    assert "its last reading is nominal 'off'" in capsys.readouterr().err
    assert await wait(target, "mode", "off", 2, output, json=True) == ExitCode.OK
    assert json.loads(written.getvalue())["value"] == "off"
    assert await wait(target, "moed", "off", 2, output) == ExitCode.REFUSED
    with pytest.raises(ValueError, match="a number must follow >"):
        await wait(target, "mode", ">x", 2, output)


# Log and ping


@pytest.mark.gen_test
async def test_log(device: FakeDevice, target: Target, output: Any, written: Any, capsys: Any) -> None:
    task = asyncio.ensure_future(log(target, "warn", "debug", False, False, 10, output))
    await gen.sleep(1)
    for words in (("error", "5.25", "a.b", "it \x1b[31mburns"), ("info", "6", "a", "no"), ("WARNING", "x", "a"), ()):
        device.inform_all("log", *words)
    await gen.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written.getvalue().splitlines() == [
        "1970-01-01 00:00:05.250Z error a.b: it \\x1b[31mburns",
        "- WARNING a: ",
    ]
    assert device.count("log-level") == 1
    assert capsys.readouterr().err == ""  # no link was lost


@pytest.mark.gen_test
async def test_log_whose_time_json_cannot_write(device: FakeDevice, target: Target, output: Any, written: Any) -> None:
    task = asyncio.ensure_future(log(target, "all", None, True, False, 10, output))
    await gen.sleep(1)
    device.inform_all("log", "info", "nan", "a", "text")
    await gen.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert json.loads(written.getvalue()) == {"level": "info", "timestamp": None, "name": "a", "message": "text"}


@pytest.mark.gen_test
async def test_ping(device: FakeDevice, target: Target, output: Any, written: Any) -> None:
    assert await ping(target, 3, 0.5, True, 5, output) == ExitCode.OK
    *lines, summary = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert set(summary) == {"sent", "answered", "lost", "reconnects", "min", "median", "p99", "max"}
    assert (summary["sent"], summary["answered"], summary["lost"]) == (3, 3, 0)


@pytest.mark.gen_test
async def test_pings_that_are_lost(device: FakeDevice, target: Target, output: Any, written: Any) -> None:
    device.on_request("watchdog", Silent(), Answer("invalid", "what?"))
    assert await ping(target, 2, 0.5, False, 1, output) == ExitCode.TIMEOUT
    assert "2 sent, 1 answered, 1 lost, 0 reconnects" in written.getvalue()
    device.on_request("watchdog", Drop(), always=True)
    assert await ping(target, 1, 0.5, False, 1, output) == ExitCode.NO_CONNECTION
    device.behaviour = Reset()
    assert await ping(target, 2, 0.5, False, 1, output) == ExitCode.NO_CONNECTION
