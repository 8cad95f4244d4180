"""What sensors the device has: who asks, when, and what makes it doubtful."""

import pytest
from sensor_tools import Picky, add_sensors, asked
from tornado import gen

from katcp_tornado import FailReply, ReplyTooLarge, RequestTimeout
from katcp_tornado.catalogue import FEW, Catalogue
from katcp_tornado.testing import Answer, Delay, Silent


class Book(Catalogue):
    """Keeps what it tells; and nothing else uses it."""

    def __init__(self, client):
        self.changes = []
        self.answers = []
        super().__init__(client._link, self.changes.append, lambda *answer: self.answers.append(answer))

    @property
    def names(self):
        return sorted(wire.decode() for wire in self.infos)


@pytest.fixture
def device(device):
    add_sensors(device, ["a", "b", "c"])
    return device


@pytest.fixture
def client(io_loop, connect, device):
    client = connect()
    io_loop.run_sync(client.wait_connected)
    return client


@pytest.fixture
def book(client):
    return Book(client)


@pytest.mark.gen_test
async def test_all(io_loop, device, book):
    assert not book.complete
    book.ask(None)
    assert not book.complete
    await io_loop.idle()
    assert book.complete and book.names == ["a", "b", "c"]
    assert book.infos[b"b"].type_name == "integer"
    assert book.answers == [(None, None)]


@pytest.mark.gen_test
async def test_one(io_loop, device, book):
    book.ask(b"b")
    await io_loop.idle()
    assert not book.complete and book.names == ["b"]
    assert book.answers == [(b"b", None)]
    assert asked(device, "sensor-list") == ["b"]


@pytest.mark.gen_test
async def test_what_is_being_asked_is_not_asked_again(io_loop, device, book):
    for wire in (b"a", b"a", None, b"b", None):
        book.ask(wire)
    await io_loop.idle()
    assert asked(device, "sensor-list") == ["a", ""]
    assert book.answers == [(b"a", None), (None, None)]
    assert book.complete


@pytest.mark.gen_test
async def test_more_than_a_few_are_the_whole_list(io_loop, device, book):
    for number in range(FEW + 3):
        book.ask(b"s%d" % number)
    await io_loop.idle()
    assert asked(device, "sensor-list") == [*(f"s{number}" for number in range(FEW)), ""]


@pytest.mark.gen_test
async def test_a_sensor_that_is_not_there(io_loop, device, book):
    book.ask(None)
    await io_loop.idle()
    del device.sensors["b"]
    book.ask(b"b")
    await io_loop.idle()
    assert book.names == ["a", "c"] and book.complete
    wire, error = book.answers[-1]
    assert wire == b"b" and isinstance(error, FailReply)


@pytest.mark.gen_test
async def test_a_sensor_of_which_the_device_says_nothing(io_loop, device, book):
    book.ask(None)
    await io_loop.idle()

    @device.request("sensor-list")
    def handler(context, message):  # what begins with the name, as some devices answer
        context.inform("b.more", "", "", "integer")

    book.ask(b"b")
    await io_loop.idle()
    assert book.names == ["a", "c"]
    assert book.answers[-1] == (b"b", None)


@pytest.mark.parametrize(("fault", "error"), [(Answer("fail", "no"), FailReply), (Silent(), RequestTimeout)])
@pytest.mark.gen_test
async def test_the_list_is_refused(io_loop, device, book, fault, error):
    book.ask(None)
    await io_loop.idle()
    device.on_request("sensor-list", fault)
    book.ask(None)
    await gen.sleep(31)
    assert not book.complete
    assert book.answers[-1][0] is None and isinstance(book.answers[-1][1], error)
    assert book.names == ["a", "b", "c"], "what was known is still the best guess"


@pytest.mark.gen_test
async def test_one_that_is_not_answered(device, book):
    book.ask(None)
    await gen.sleep(1)
    device.on_request("sensor-list", Silent())
    book.ask(b"a")
    await gen.sleep(31)
    assert not book.complete
    assert isinstance(book.answers[-1][1], RequestTimeout)


@pytest.mark.gen_test
async def test_nonsense_in_the_list(io_loop, device, book, caplog):
    @device.request("sensor-list")
    def handler(context, message):
        for args in ((), ("x",), ("y", "", "", "integer"), ("z", "", "")):
            context.inform(*args)

    book.ask(None)
    await io_loop.idle()
    assert book.names == ["y"] and book.complete
    assert "#sensor-list" in caplog.text


# What changes


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
async def test_everything(io_loop, device, book, name, args):
    book.ask(None)
    await io_loop.idle()
    device.inform_all(name, *args)
    await io_loop.idle()
    assert book.changes == [None]
    assert not book.complete and book.names == []


@pytest.mark.parametrize("change", [("added",), ("removed",), ("modified",), ()])
@pytest.mark.gen_test
async def test_one_sensor(io_loop, device, book, change):
    book.ask(None)
    await io_loop.idle()
    device.inform_all("interface-changed", "sensor", "b", *change)
    await io_loop.idle()
    assert book.changes == [b"b"] and book.names == ["a", "c"]
    assert not book.complete, "nothing is known of it"
    book.ask(b"b")
    await io_loop.idle()
    assert book.complete and book.names == ["a", "b", "c"]


@pytest.mark.gen_test
async def test_many_sensors_one_by_one(io_loop, device, book):
    book.ask(None)
    await io_loop.idle()
    for number in range(FEW + 1):
        device.inform_all("interface-changed", "sensor", f"s{number}", "added")
    await io_loop.idle()
    assert len(book.changes) == FEW + 1
    for number in range(FEW + 1):
        book.ask(b"s%d" % number)
    await io_loop.idle()
    assert book.complete and asked(device, "sensor-list")[-1] == ""


@pytest.mark.gen_test
async def test_one_sensor_whose_answer_does_not_come(device, book):
    book.ask(None)
    await gen.sleep(1)
    device.inform_all("interface-changed", "sensor", "b", "modified")
    device.on_request("sensor-list", Silent())
    await gen.sleep(1)
    book.ask(b"b")
    await gen.sleep(31)
    assert not book.complete
    book.ask(None)
    await gen.sleep(1)
    assert book.complete


@pytest.mark.parametrize("args", [("request-list",), ("request", "help", "added")])
@pytest.mark.gen_test
async def test_requests(io_loop, device, book, args):
    book.ask(None)
    await io_loop.idle()
    device.inform_all("interface-changed", *args)
    await io_loop.idle()
    assert book.changes == [] and book.complete and book.names == ["a", "b", "c"]


@pytest.mark.parametrize("asks", [None, b"b"])
@pytest.mark.parametrize("change", [("sensor-list",), ("sensor", "b", "modified")])
@pytest.mark.gen_test
async def test_a_change_while_it_is_being_asked(io_loop, device, book, asks, change):
    """The answer may be older than the change, so it is asked for again."""
    device.on_request("sensor-list", Delay(1), Delay(1))
    if asks is not None:
        book.ask(None)
        await gen.sleep(1.5)
        device.on_request("sensor-list", Delay(1))
        book.answers.clear()
        asked(device, "sensor-list")
    book.ask(asks)
    await io_loop.idle()
    for _ in range(3):
        device.inform_all("interface-changed", *change)
    await gen.sleep(0.5)
    assert book.changes == [None if change == ("sensor-list",) else b"b"] * 3
    await gen.sleep(1)
    assert len(book.answers) == 1 and not book.complete
    assert book.asks(b"b")
    await gen.sleep(1)
    assert asked(device, "sensor-list") == ["" if asks is None else "b"] * 2, "once"
    assert len(book.answers) == 2
    assert book.complete is (asks is None or change != ("sensor-list",))


@pytest.mark.gen_test
async def test_another_sensor_changes_meanwhile(io_loop, device, book):
    device.on_request("sensor-list", Delay(1))
    book.ask(b"a")
    device.inform_all("interface-changed", "sensor", "b", "modified")
    await gen.sleep(2)
    assert asked(device, "sensor-list") == ["a"]


# Connections


@pytest.mark.gen_test
async def test_forget(io_loop, device, book):
    book.ask(None)
    await io_loop.idle()
    device.on_request("sensor-list", Delay(1))
    book.ask(b"a")
    await io_loop.idle()
    book.forget()
    assert not book.complete and book.names == []
    await gen.sleep(2)
    assert book.names == [], "an answer that comes late is not taken"
    assert len(book.answers) == 1
    book.ask(b"a")
    await io_loop.idle()
    assert book.names == ["a"]


@pytest.mark.gen_test
async def test_forget_and_ask_again_at_once(io_loop, device, book):
    device.on_request("sensor-list", Delay(1), Delay(2))
    book.ask(b"a")
    book.forget()
    book.ask(b"a")
    await gen.sleep(1.5)
    assert book.answers == []
    await gen.sleep(1)
    assert book.answers == [(b"a", None)]


@pytest.mark.gen_test
async def test_lost_while_it_is_being_asked(io_loop, device, client, book):
    device.behaviour = Picky("sensor-list")
    device.inform_all("interface-changed")
    book.ask(None)
    book.forget()
    device.drop_all()
    await client.wait_disconnected()
    assert book.answers == []


@pytest.mark.gen_test
async def test_a_list_without_end(io_loop, device, connect):
    """It is given up at max_reply, and kept nowhere."""

    @device.request("sensor-list")
    def endless(context, message):
        for number in range(20_000):
            context.inform(f"sensor-{number}", "x", "", "integer")
        return (20_000,)

    client = connect(max_reply=100_000)
    await client.wait_connected()
    book = Book(client)
    book.ask(None)
    await io_loop.idle()
    ((wire, error),) = book.answers
    assert wire is None and type(error) is ReplyTooLarge
    assert book.infos == {} and not book.complete
    assert (await client.request("echo", "alive")).arguments == [b"alive"]
