"""katcp-tornado shell: what is typed, and what completes it; the shell as a whole stands in test_pty.py."""

from __future__ import annotations

from typing import Any

import pytest

from katcp_tornado import Device, Message
from katcp_tornado.testing import FakeDevice

pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed")

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from katcp_tornado.cli.shell import Names, helped, parse, shell


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("watchdog", Message.request("watchdog")),
        ("set a  b ", Message.request("set", b"a", b"b")),
        ("""set "a b" 'c "d' it's "x"y""", Message.request("set", b"a b", b'c "d', b"it's", b'"x"y')),
        (r"set a\_b \@ ''", Message.request("set", b"a b", b"", b"")),
        (r'set "a\_b"', Message.request("set", rb"a\_b")),
        (r'?set[7] a\_b "c', Message.request("set", b"a b", b'"c')),
        ("set é", Message.request("set", "é".encode())),
    ],
)
def test_what_is_typed(line: str, message: Message) -> None:
    assert parse(line) == message


@pytest.mark.parametrize("line", ["", "?", "!reply ok", "1x", r"set a\q", "é"])
def test_what_is_no_request(line: str) -> None:
    with pytest.raises(ValueError):
        parse(line)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("echo?", "echo"),
        ("echo ?", "echo"),
        ("help echo", "echo"),
        ("help", None),
        ("?help echo", None),
        ("a b?", None),
    ],
)
def test_what_asks_for_help(line: str, name: Any) -> None:
    assert helped(line) == name


@pytest.mark.gen_test
async def test_completion(device: FakeDevice) -> None:
    device.add_sensor("temperature", "float", 21.5, "of the\x1b[31m receiver", "degC")
    device.add_sensor("m000.temperature", "float", 21.5)
    async with Device(device.host, device.port) as connected:
        await connected.synced(timeout=10)

        def completed(text: str, asked: bool = True) -> list[tuple[str, str]]:
            event = CompleteEvent(completion_requested=asked)
            found = Names(connected).get_completions(Document(text), event)
            return [(text[: len(text) + one.start_position] + one.text, one.display_meta_text) for one in found]

        ((line, meta),) = completed("watch")
        assert line == "watchdog" and meta == "Show that the device is alive."
        assert [line for line, _ in completed("?sensor-v")] == ["?sensor-value"]
        assert [line for line, _ in completed("help echo")] == ["help echo"]
        assert completed("sensor-value tem") == [("sensor-value temperature", "of the\\x1b[31m receiver")]
        assert [line for line, _ in completed("x 0.t")] == ["x m000.temperature"], "in the middle, too"
        assert len(completed("x ")) == len(connected.sensor) and not completed("x ", asked=False)


@pytest.mark.gen_test
async def test_without_a_terminal(output: Any) -> None:
    with pytest.raises(ValueError, match="request DEVICE -"):
        await shell(None, 5.0, False, output)  # type: ignore[arg-type]
