"""The registry of callbacks behaves as a list does, at any size."""

from __future__ import annotations

import contextvars
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado import gen
from tornado.netutil import Resolver

from katcp_tornado import Backoff, Client, Message
from katcp_tornado.connection.registry import InContext, Registry
from katcp_tornado.testing import FakeDevice, Reset, VirtualTimeLoop

here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="nowhere")


class Named:
    """A callback that equals another of the same name; *hashed* says how it can be found."""

    def __init__(self, name: int, hashed: bool) -> None:
        self.name = name
        self.hashed = hashed

    def __call__(self) -> None:
        """Do nothing."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and (self.name, self.hashed) == (other.name, other.hashed)

    def __hash__(self) -> int:
        if not self.hashed:
            raise TypeError("unhashable")
        return self.name


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans())))
def test_as_a_list(steps: list[tuple[bool, int, bool]]) -> None:
    registry: Registry[int] = Registry()
    model: list[tuple[Named, int]] = []
    for value, (adds, name, hashed) in enumerate(steps):
        callback = Named(name, hashed)
        if adds:
            registry.add(callback, value)
            model.append((callback, value))
        elif callback in [known for known, _ in model]:
            registry.remove(callback, "callback")
            del model[[known for known, _ in model].index(callback)]
        else:
            with pytest.raises(ValueError, match="is no callback"):
                registry.remove(callback, "callback")
        assert registry.values == tuple(value for _, value in model)
        assert len(registry) == len(model)


@pytest.mark.gen_test
async def test_ten_thousand_waits_for_one_inform(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    """Made, cancelled and met in a fraction of a second; it was half a minute when each cost what all do."""
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        began = time.process_time()
        waits = [client.wait_inform("done") for _ in range(10_000)]
        for wait in waits[::2]:
            wait.cancel()
        await io_loop.idle()
        device.send_raw(b"#done\n")
        assert {str(await wait) for wait in waits[1::2]} == {"#done"}
        await io_loop.idle()
        assert time.process_time() - began < 4
        device.send_raw(b"#done\n")
        await io_loop.idle()
        assert client.stats.unmatched_replies == 0


# Contexts


def test_each_call_has_a_copy_of_the_context_of_registration() -> None:
    seen: list[str] = []

    def callback(again: bool) -> None:
        seen.append(here.get())
        here.set("changed")
        if again:
            registered(False)

    here.set("registered")
    registered = InContext(callback)
    here.set("later")
    registered(True)
    registered(False)
    assert seen == ["registered"] * 3
    assert here.get() == "later"
    assert repr(registered) == repr(callback)


class Seeing(Resolver):
    """Notes the context of each look-up."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def resolve(self, host: str, port: int, family: Any = None) -> Any:
        self.seen.append(here.get())
        return [(2, ("127.0.0.1", port))]


@pytest.mark.gen_test
async def test_callbacks_of_a_client(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    """All run where they were registered, whoever has made them run; attempts where the client was made."""
    seen: list[tuple[str, str]] = []

    def note(what: str) -> Any:
        return lambda *_: seen.append((what, here.get()))

    async def task() -> None:
        seen.append(("task", here.get()))

    device.add_sensor("an.int", "integer", 1)
    here.set("made")
    resolver = Seeing()
    client = Client("device", device.port, resolver=resolver, backoff=Backoff(minimum=0))
    here.set("registered")
    client.add_connected_callback(note("connected"))
    client.add_connected_callback(task)
    client.add_disconnected_callback(note("disconnected"))
    client.add_state_callback(note("state"))
    client.add_inform_callback("note", note("inform"))
    client.subscribe("an.int", note("reading"))
    heard = client.wait_inform("note", note("predicate"))
    here.set("asked")
    await client.wait_connected()
    asked = client.request("help", on_inform=note("on_inform"))
    here.set("elsewhere")
    await asked
    device.send_raw(b"#note a\n")
    await io_loop.idle()
    heard.cancel()
    device.behaviour = Reset()
    device.drop_all()
    await client.wait_disconnected()
    client.retry_now()
    await gen.sleep(5)
    client.close()
    asked_in = {where for what, where in seen if what == "on_inform"}
    assert asked_in == {"asked"}
    assert {what for what, _ in seen} == {
        "connected", "task", "disconnected", "state", "inform", "reading", "predicate", "on_inform",
    }  # fmt: skip
    assert {where for what, where in seen if what != "on_inform"} == {"registered"}
    assert len(resolver.seen) > 2 and set(resolver.seen) == {"made"}


@pytest.mark.gen_test
async def test_a_message_callback_is_a_message_callback(device: FakeDevice) -> None:
    """What `wait_inform` registers takes part in the order, and a change is heard by the next inform."""
    order: list[int] = []

    def first(message: Message) -> None:
        order.append(1)
        client.remove_inform_callback("x", first)

    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        client.add_inform_callback("x", first)
        waits = client.wait_inform("x", lambda message: order.append(2))
        client.add_inform_callback("x", lambda message: order.append(3))
        device.send_raw(b"#x\n#x\n")
        await client.wait_inform("x")
        assert order in ([1, 2, 3], [1, 2, 3, 2, 3])
        waits.cancel()
