"""F48: a peer that makes one line as long as it may be, of what is dear to show."""

from __future__ import annotations

import logging
import tracemalloc
from typing import Any, Callable

import pytest
from tornado.ioloop import IOLoop

from katcp_tornado import FailReply, InvalidReply, KatcpError, Message, forward_logs
from katcp_tornado.protocol.session import Session
from katcp_tornado.testing import Disconnect, FakeDevice, Raw

MIB = 1024**2
DEAR = b"\xff" * (16 * MIB)  # neither ASCII nor UTF-8: four characters each where it is escaped


class Memory:
    """The memory that the last chunk of a line takes beside the line. Text escaped whole takes many times it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        receive = Session.receive

        def traced(session: Session, data: Any) -> None:
            last = bytes(data[-1:]) == b"\n"
            if last:
                tracemalloc.start()
            receive(session, data)
            if last:
                self.peak = max(self.peak, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

        monkeypatch.setattr(Session, "receive", traced)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Memory:
    caplog.set_level(logging.DEBUG)
    return Memory(monkeypatch)


def check(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    assert 0 < memory.peak < 4 * 16 * MIB
    assert max(len(record.getMessage()) for record in caplog.records if record.name == "katcp_tornado") < 1200


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (b"!echo[1] odd " + DEAR, InvalidReply, "neither ok, fail nor invalid: !echo[1] odd \\xff"),
        (b"!echo[1] " + DEAR, InvalidReply, "neither ok, fail nor invalid: !echo[1] \\xff"),
        (b"!echo[1] fail " + DEAR, FailReply, "\\xff"),
        (b"!echo[1] invalid " + DEAR, InvalidReply, "\\xff"),
    ],
    ids=["odd", "no code", "fail", "invalid"],
)
@pytest.mark.gen_test
async def test_f48_a_reply(
    device: FakeDevice,
    witnessed: Callable[..., Any],
    memory: Memory,
    caplog: pytest.LogCaptureFixture,
    reply: bytes,
    error: type[KatcpError],
    text: str,
) -> None:
    client = witnessed(device.host, device.port).client
    device.on_request("echo", Raw(reply + b"\n"))
    await client.wait_connected()
    with pytest.raises(error) as caught:
        await client.request("echo", timeout=None)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 1024
    assert len(repr(caught.value)) < 2 * 1024
    assert len(bytes(caught.value.reply)) == len(reply) + 1  # type: ignore[attr-defined]
    check(memory, caplog)


@pytest.mark.parametrize(
    "line",
    [
        b"#counted " + DEAR,
        b"#nobodys " + DEAR,
        b"#nobodys" + b"s" * (16 * MIB),
        b"#log info 1 there " + DEAR,
        b"#log " + DEAR,
        b"#sensor-status " + DEAR,
        b"#sensor-status 1 1 a " + DEAR,
        b"#sensor-status 1 1 a nominal " + DEAR,
        b"!echo " + DEAR,
        b"?echo " + DEAR,
        DEAR,
        b"#disconnect " + DEAR,
        b"#version-connect a " + DEAR,
        b"#version-connect katcp-protocol " + DEAR,
    ],
    ids=lambda line: f"{line[:40]!r}",
)
@pytest.mark.gen_test
async def test_f48_any_other_line(
    io_loop: IOLoop,
    device: FakeDevice,
    witnessed: Callable[..., Any],
    memory: Memory,
    caplog: pytest.LogCaptureFixture,
    line: bytes,
) -> None:
    def on_counted(count: int) -> None:
        raise AssertionError("that was no number")

    device.add_sensor("a", "integer", 5)
    client = witnessed(device.host, device.port).client
    client.add_inform_callback("counted", on_counted)
    forward_logs(client, logging.getLogger("device"))
    client.subscribe("a")
    await client.wait_connected()
    await io_loop.idle()  # type: ignore[attr-defined]
    device.send_raw(line + b"\n#after\n")
    if not line.startswith(b"#disconnect"):
        await client.wait_inform("after")
    else:
        await client.wait_disconnected()
        assert len(str(client.last_exc)) < 1024
    check(memory, caplog)


@pytest.mark.gen_test
async def test_f48_before_its_version(device: FakeDevice, witnessed: Callable[..., Any]) -> None:
    device.behaviour = Raw(b"#version-connect katcp-protocol " + b"\xff" * 60_000 + b"\n")
    witness = witnessed(device.host, device.port, auto_reconnect=False)
    with pytest.raises(KatcpError) as caught:
        await witness.client.wait_connected()
    assert len(str(caught.value)) < 1024
    device.behaviour = Disconnect("\x00" * 60_000, after_version=False)
    witness = witnessed(device.host, device.port, auto_reconnect=False)
    with pytest.raises(KatcpError) as caught:
        await witness.client.wait_connected()
    assert len(str(caught.value)) < 1024


def test_f48_a_message_shown_whole() -> None:
    message = Message.reply("a", DEAR)
    assert len(repr(message)) < 1100
    assert len(str(message)) == 4 * len(DEAR) + 3
