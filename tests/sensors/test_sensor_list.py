"""The list of the device's sensors: who asks, when, and which announcements lead to another question."""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest
from sensor_tools import Picky, add_sensors, asked
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import Client, FailReply, ReplyTooLarge, RequestTimeout
from katcp_tornado.sensors.sensor_list import SensorList
from katcp_tornado.testing import Answer, Delay, FakeDevice, Silent


class Book(SensorList):
    """A list that keeps what it tells; *needed* is what somebody needs after an announcement."""

    def __init__(self, client: Client) -> None:
        self.needed: Optional[set[bytes]] = None
        self.answers: list[Any] = []
        self.announced: list[Any] = []
        super().__init__(
            client._link,
            lambda: self.needed,
            lambda wire, error, before: self.answers.append((wire, error)),
            self.announced.append,
        )
        for name in ("interface-changed", "device-changed"):
            client._link.callbacks.add_inform_handler(name, self.on_changed)

    @property
    def names(self) -> list[str]:
        return sorted(wire.decode() for wire in self.known.infos)


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    add_sensors(device, ["a", "b", "c"])
    return device


@pytest.fixture
def client(io_loop: IOLoop, connect: Callable[..., Client], device: FakeDevice) -> Client:
    client = connect()
    io_loop.run_sync(client.wait_connected)
    return client


@pytest.fixture
def book(client: Client) -> Book:
    return Book(client)


@pytest.mark.gen_test
async def test_all(io_loop: Any, book: Book) -> None:
    assert book.known.has(b"b") is None
    book.ask_all()
    assert book.asks(b"b") and not book.known.complete
    await io_loop.idle()
    assert book.known.complete and book.names == ["a", "b", "c"]
    assert book.known.infos[b"b"].type_name == "integer"
    assert (book.known.has(b"b"), book.known.has(b"z")) == (True, False)
    assert (book.answers, book.announced) == ([(None, None)], [])


@pytest.mark.gen_test
async def test_one(io_loop: Any, device: FakeDevice, book: Book) -> None:
    book.look_up([b"b"])
    await io_loop.idle()
    assert not book.known.complete and book.names == ["b"]
    assert book.answers == [(b"b", None)]
    assert asked(device, "sensor-list") == ["b"]


@pytest.mark.gen_test
async def test_what_is_being_asked_is_not_asked_again(io_loop: Any, device: FakeDevice, book: Book) -> None:
    for wires in ([b"a"], [b"a"], [b"a", b"b", b"c"], [b"b"]):
        book.look_up(wires)
    book.ask_all()
    await io_loop.idle()
    assert asked(device, "sensor-list") == ["a", ""]
    assert book.answers == [(b"a", None), (None, None)]


@pytest.mark.gen_test
async def test_a_sensor_that_is_not_there(io_loop: Any, device: FakeDevice, book: Book) -> None:
    book.look_up([b"z"])
    await io_loop.idle()
    assert book.known.has(b"z") is False
    ((wire, error),) = book.answers
    assert wire == b"z" and isinstance(error, FailReply)
    book.known.doubt(b"z")
    assert book.known.has(b"z") is None, "it may be there by now"


@pytest.mark.gen_test
async def test_a_sensor_of_which_the_device_says_nothing(io_loop: Any, device: FakeDevice, book: Book) -> None:
    @device.request("sensor-list")
    def handler(context: Any, message: Any) -> None:  # what begins with the name, as some devices answer
        context.inform("b.more", "", "", "integer")

    book.look_up([b"b"])
    await io_loop.idle()
    assert book.names == [] and book.known.has(b"b") is False


@pytest.mark.parametrize(("fault", "error"), [(Answer("fail", "no"), FailReply), (Silent(), RequestTimeout)])
@pytest.mark.gen_test
async def test_the_list_is_refused(device: FakeDevice, book: Book, fault: Any, error: type[Exception]) -> None:
    book.ask_all()
    await gen.sleep(1)
    device.on_request("sensor-list", fault)
    book.ask_all()
    await gen.sleep(31)
    assert not book.known.complete and isinstance(book.known.error, error)
    assert book.answers[-1] == (None, book.known.error)
    assert book.names == ["a", "b", "c"], "what was known is still the best guess"


@pytest.mark.gen_test
async def test_a_line_that_lacks_something(
    io_loop: Any, device: FakeDevice, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    @device.request("sensor-list")
    def handler(context: Any, message: Any) -> None:
        for args in ((), ("x",), ("y", "", "", "integer"), ("z", "text", "m")):
            context.inform(*args)

    book.ask_all()
    await io_loop.idle()
    assert book.names == ["x", "y", "z"]
    assert book.known.infos[b"x"] == ("x", "", "", "", [])
    assert book.known.infos[b"z"] == ("z", "text", "m", "", [])
    assert "a sensor has a name" in caplog.text


# Announcements


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("interface-changed", ()),
        ("interface-changed", ("sensor-list",)),
        ("interface-changed", ("sensor",)),
        ("interface-changed", ("something-new", "a")),
        ("device-changed", ("sensor-list",)),
        ("device-changed", ()),
    ],
)
@pytest.mark.gen_test
async def test_everything_has_changed(
    io_loop: Any, device: FakeDevice, book: Book, name: str, args: tuple[str, ...]
) -> None:
    book.ask_all()
    await gen.sleep(1)
    device.add_sensor("d", "integer", 1)
    device.inform_all(name, *args)
    await io_loop.idle()
    assert book.names == ["a", "b", "c", "d"]
    assert book.announced == [None]


@pytest.mark.parametrize("change", [("added",), ("removed",), ("modified",), ()])
@pytest.mark.gen_test
async def test_one_sensor_has_changed(io_loop: Any, device: FakeDevice, book: Book, change: tuple[str, ...]) -> None:
    book.ask_all()
    await gen.sleep(1)
    device.inform_all("interface-changed", "sensor", "b", *change)
    await io_loop.idle()
    assert book.known.complete, "all that is known is still the best guess"
    assert asked(device, "sensor-list") == ["", "b"]
    assert book.announced == [{b"b"}]


@pytest.mark.parametrize(
    ("needed", "changed", "questions"),
    [
        (set(), ["a"], []),
        (set(), [None], []),
        ({b"a"}, [None], ["a"]),
        ({b"a"}, ["b", "c"], []),
        ({b"a"}, ["b", "a"], ["a"]),
        ({b"a", b"b"}, ["b", "a", "c"], [""]),
        (None, ["b", "c"], [""]),
        (None, ["b"], ["b"]),
    ],
)
@pytest.mark.gen_test
async def test_no_more_is_asked_than_somebody_needs(
    device: FakeDevice, book: Book, needed: Optional[set[bytes]], changed: list[Optional[str]], questions: list[str]
) -> None:
    book.needed = set()
    device.inform_all("interface-changed")
    await gen.sleep(0.01)
    book.needed, book.announced[:] = needed, []
    for name in changed:  # within the pause of the brake: together
        device.inform_all("interface-changed", *(() if name is None else ("sensor", name, "modified")))
    await gen.sleep(1)
    assert asked(device, "sensor-list") == questions
    assert book.announced == [None if changed == [None] else {name.encode() for name in changed if name}]


@pytest.mark.parametrize("args", [("request-list",), ("request", "help", "added")])
@pytest.mark.gen_test
async def test_requests_have_changed(io_loop: Any, device: FakeDevice, book: Book, args: tuple[str, ...]) -> None:
    device.inform_all("interface-changed", *args)
    await io_loop.idle()
    assert (asked(device, "sensor-list"), book.announced) == ([], [])


@pytest.mark.gen_test
async def test_a_burst_is_two_questions_one_at_a_time(device: FakeDevice, book: Book) -> None:
    """The first answer may be older than the last announcement."""
    device.on_request("sensor-list", Delay(1), Delay(1))
    for number in range(100):
        device.inform_all("interface-changed", *(("sensor", f"s{number}", "added") if number % 2 else ()))
    await gen.sleep(0.5)
    assert asked(device, "sensor-list") == [""]
    await gen.sleep(0.55)
    assert len(book.answers) == 1 and asked(device, "sensor-list") == [], "the brake waits for 0.1 s"
    await gen.sleep(10)
    assert asked(device, "sensor-list") == [""] and book.announced == [None, None]


@pytest.mark.gen_test
async def test_a_restless_device(device: FakeDevice, book: Book) -> None:
    @device.request("sensor-list")
    def handler(context: Any, message: Any) -> None:
        device.inform_all("interface-changed")

    device.inform_all("interface-changed")
    await gen.sleep(60)
    assert len(asked(device, "sensor-list")) == 17, "0.1 0.2 0.4 0.8 1.6 3.2 5 5 ..."


@pytest.mark.gen_test
async def test_an_announcement_whose_question_is_not_answered(device: FakeDevice, book: Book) -> None:
    device.on_request("sensor-list", Silent())
    device.inform_all("interface-changed")
    await gen.sleep(31)
    assert book.announced == [None], "what was set may be forgotten all the same"
    assert isinstance(book.known.error, RequestTimeout)


# Connections


@pytest.mark.gen_test
async def test_forget(io_loop: Any, device: FakeDevice, book: Book) -> None:
    book.ask_all()
    await io_loop.idle()
    device.on_request("sensor-list", Delay(1))
    book.look_up([b"a"])
    await io_loop.idle()
    book.forget()
    assert not book.known.complete and book.names == []
    await gen.sleep(2)
    assert book.names == [], "an answer that comes late is not taken"
    book.look_up([b"a"])
    await io_loop.idle()
    assert book.names == ["a"]


@pytest.mark.gen_test
async def test_forget_and_ask_again_at_once(device: FakeDevice, book: Book) -> None:
    device.on_request("sensor-list", Delay(1), Delay(2))
    book.look_up([b"a"])
    book.forget()
    book.look_up([b"a"])
    await gen.sleep(1.5)
    assert book.answers == []
    await gen.sleep(1)
    assert book.answers == [(b"a", None)]


@pytest.mark.gen_test
async def test_lost_while_it_is_being_asked(device: FakeDevice, client: Client, book: Book) -> None:
    device.behaviour = Picky("sensor-list")
    book.ask_all()
    book.forget()
    device.drop_all()
    await client.wait_disconnected()
    assert book.answers == []


@pytest.mark.gen_test
async def test_a_list_without_end(io_loop: Any, device: FakeDevice, connect: Callable[..., Client]) -> None:
    """It is abandoned at max_reply, and kept nowhere."""

    @device.request("sensor-list")
    def endless(context: Any, message: Any) -> Any:
        for number in range(20_000):
            context.inform(f"sensor-{number}", "x", "", "integer")
        return (20_000,)

    client = connect(max_reply=100_000)
    await client.wait_connected()
    book = Book(client)
    book.ask_all()
    await io_loop.idle()
    ((wire, error),) = book.answers
    assert wire is None and type(error) is ReplyTooLarge
    assert book.names == [] and not book.known.complete
    assert (await client.request("echo", "alive")).arguments == [b"alive"]
