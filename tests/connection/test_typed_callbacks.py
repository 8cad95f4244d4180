# mypy: disable-error-code="no-untyped-def,no-untyped-call,var-annotated,arg-type,misc"
"""Inform callbacks: what each kind of signature gets, and what happens when the arguments do not fit."""

import enum
import functools
import logging
import types
import typing
from collections import deque
from typing import Any, Optional, Union
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado import gen

import katcp_tornado
from katcp_tornado import Address, Message, Timestamp, register_type
from katcp_tornado.connection.typed_callbacks import Misfit, adapt

if typing.TYPE_CHECKING:
    from collections.abc import Awaitable  # not there when the annotations are evaluated


def inform(*args):
    return Message.inform("it", *args)._raw


class Recorder:
    """Callbacks of every shape; each notes what it was called with."""

    def __init__(self):
        self.calls = []

    def note(self, *args):
        self.calls.append(args)


@pytest.fixture
def seen():
    return []


def call(callback, *args, major=5):
    return adapt(callback, major)(inform(*args))


MESSAGE = Message.inform("it", b"1", b"two")


# Those that get the message


def only(message):
    return message


def annotated(message: Message):
    return message


def in_text(message: "Message"):
    return message


def in_other_text(message: "katcp_tornado.Message"):
    return message


def anything(*args):
    assert len(args) == 1
    return args[0]


def really_anything(*args, **kwargs):
    assert len(args) == 1 and not kwargs
    return args[0]


def many_messages(*messages: Message):
    assert len(messages) == 1
    return messages[0]


def with_default(message=None):
    return message


def with_annotation_and_default(message: Message = None):  # type: ignore[assignment]
    return message


def with_options(message, *, level=3, logger: "NotDefinedAnywhere" = None):  # type: ignore[name-defined]  # noqa: F821
    assert (level, logger) == (3, None)
    return message


def with_kwargs(message: Message, **kwargs):
    assert not kwargs
    return message


def positional_only(message, /):
    return message


class Plain:
    def method(self, message):
        return message

    def typed(self, message: Message):
        return message

    def typed_in_text(self, message: "Message") -> "Plain":
        return message  # type: ignore[return-value]

    @classmethod
    def of_class(cls, message: Message):
        assert cls is Plain
        return message

    @staticmethod
    def static(message):
        return message

    def __call__(self, message: "Message"):
        return message


def two(first, message):
    assert first == "given"
    return message


def two_typed(first, message: "Message"):
    assert first == "given"
    return message


def decorate(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@decorate  # type: ignore[untyped-decorator]
def decorated(message: "Message"):
    return message


WHOLE = {
    "unannotated": only,
    "annotated": annotated,
    "annotated in text": in_text,
    "annotated in other text": in_other_text,
    "*args": anything,
    "*args, **kwargs": really_anything,
    "*args: Message": many_messages,
    "default": with_default,
    "annotation and default": with_annotation_and_default,
    "keyword-only": with_options,
    "**kwargs": with_kwargs,
    "positional-only": positional_only,
    "lambda": lambda message: message,
    "lambda *args": lambda *args: args[0],
    "bound method": Plain().method,
    "typed bound method": Plain().typed,
    "bound method typed in text": Plain().typed_in_text,
    "class method": Plain.of_class,
    "static method": Plain.static,
    "callable object": Plain(),
    "partial": functools.partial(two, "given"),
    "typed partial": functools.partial(two_typed, "given"),
    "partial by keyword": functools.partial(with_options, level=3),
    "partial of partial": functools.partial(functools.partial(two, "given")),
    "partial of a method": functools.partial(Plain().typed),
    "partial of a callable object": functools.partial(Plain()),
    "decorated": decorated,
    "method type": types.MethodType(two_typed, "given"),
}


@pytest.mark.parametrize("callback", WHOLE.values(), ids=WHOLE)
def test_it_gets_the_message(callback):
    message = call(callback, 1, "two")
    assert type(message) is Message
    assert message == MESSAGE


def test_builtins_get_the_message():
    # list.append has a signature, deque.append has not (before Python 3.13 or so), dict.update never has
    collected, more = [], deque()
    call(collected.append, 1, "two")
    call(more.append, 1, "two")
    assert collected == list(more) == [MESSAGE]


@pytest.mark.parametrize("callback", [print, dict, int, max, {}.update], ids=repr)
def test_builtins_without_a_usable_signature_are_accepted(callback):
    assert callable(adapt(callback, 5))


def test_print_prints_the_message(capsys):
    call(print, 1, "two")
    assert capsys.readouterr().out == "#it 1 two\n"


@pytest.mark.parametrize("make", [mock.Mock, mock.MagicMock, lambda: mock.create_autospec(only)])
def test_a_mock_gets_the_message(make):
    callback = make()
    call(callback, 1, "two")
    callback.assert_called_once_with(MESSAGE)


def test_a_mock_with_a_signature_is_called_like_it():
    def typed(count: int, text: str):
        raise AssertionError("not called")

    callback = mock.create_autospec(typed)
    call(callback, 1, "two")
    callback.assert_called_once_with(1, "two")


# Those that get the arguments


class Colour(enum.Enum):
    DARK_RED = 1
    BLUE = 2


class Special(enum.Enum):
    ONE = "anything"

    @property
    def katcp_value(self):
        return b"*1*"


@pytest.mark.parametrize(
    ("type_", "raw", "value"),
    [
        (bytes, b"\x00\xff", b"\x00\xff"),
        (str, "é".encode(), "é"),
        (int, b"-12", -12),
        (int, b"0x0f", 15),
        (float, b"1.5", 1.5),
        (bool, b"1", True),
        (Timestamp, b"1.5", Timestamp(1.5)),
        (Address, b"[::1]:80", Address("::1", 80)),
        (Colour, b"dark-red", Colour.DARK_RED),
        (Special, b"*1*", Special.ONE),
        (Any, b"x", b"x"),
        (Optional[int], b"3", 3),
        (Union[int, str], b"3", 3),
        (Union[int, str], b"x", "x"),
        (Union[str, int], b"3", "3"),
    ],
)
def test_types(type_, raw, value):
    def callback(it):
        return it

    callback.__annotations__["it"] = type_
    result = call(callback, raw)
    assert result == value
    assert type(result) is type(value)


def test_the_example_of_the_contract():
    def cb(timestamp: Timestamp, count: int, *args: bytes):
        return timestamp, count, args

    assert call(cb, b"2.5", b"3", b"a", b"b") == (Timestamp(2.5), 3, (b"a", b"b"))
    assert call(cb, b"2.5", b"3") == (Timestamp(2.5), 3, ())


def test_version_4_times_are_milliseconds():
    def cb(timestamp: Timestamp, period: float, *more: Timestamp, **ignored: int):
        return timestamp, period, more

    args = b"2500", b"2500", b"3000", b"1"
    assert call(cb, *args, major=4) == (2.5, 2500.0, (3.0, 0.001))
    assert call(cb, *args, major=5) == (2500.0, 2500.0, (3000.0, 1.0))

    def maybe(timestamp: Optional[Timestamp]):
        return timestamp

    assert call(maybe, b"2500", major=4) == 2.5


def test_several_parameters_without_annotation_are_bytes():
    assert call(lambda a, b: (a, b), 1, "two") == (b"1", b"two")
    assert call(lambda a, *b: (a, b), 1, "two", 3) == (b"1", (b"two", b"3"))

    def mixed(a, b: int, c):
        return a, b, c

    assert call(mixed, b"1", b"2", b"3") == (b"1", 2, b"3")


def test_typed_arguments_of_any_number():
    def callback(*args: int):
        return args

    assert call(callback, 1, 2, 3) == (1, 2, 3)
    assert call(callback) == ()

    def texts(*args: bytes):
        return args

    assert call(texts, 1, 2) == (b"1", b"2")


def test_defaults_stand_for_what_is_missing():
    def callback(a: int, b: int = 20, c: Optional[str] = None):
        return a, b, c

    assert call(callback, 1) == (1, 20, None)
    assert call(callback, 1, 2) == (1, 2, None)
    assert call(callback, 1, 2, 3) == (1, 2, "3")


def test_a_callback_without_parameters():
    assert call(lambda: "called") == "called"
    with pytest.raises(Misfit, match="1 arguments, but the callback takes 0"):
        call(lambda: None, 1)


def test_keyword_only_parameters_are_left_alone():
    def callback(count: int, *, scale: float = 2.0):
        return count, scale

    assert call(callback, 3) == (3, 2.0)
    assert call(functools.partial(callback, scale=3.0), 3) == (3, 3.0)


def test_a_required_keyword_can_never_be_given():
    def callback(message, *, level):
        raise AssertionError

    with pytest.raises(TypeError, match="'level' is required"):
        adapt(callback, 5)
    assert call(functools.partial(lambda message, *, level: message, level=3), 1, "two") == MESSAGE


class Typed:
    def method(self, a: int, b: "Timestamp", *c: "Colour"):
        return a, b, c

    def __call__(self, a: "int", b: "Timestamp"):
        return a, b


def typed(a: "int", b: "Optional[Timestamp]" = None):
    return a, b


def test_annotations_in_text():
    assert call(typed, 1, 2.5) == (1, Timestamp(2.5))
    assert call(typed, 1) == (1, None)
    assert call(Typed().method, 1, 2.5, Colour.BLUE) == (1, Timestamp(2.5), (Colour.BLUE,))
    assert call(Typed(), 1, 2.5) == (1, Timestamp(2.5))
    assert call(decorate(typed), 1, 2.5) == (1, Timestamp(2.5))
    assert call(functools.lru_cache(typed), 1, 2.5) == (1, Timestamp(2.5))  # its wrapper is of another module
    assert call(functools.partial(typed, 7), 2.5) == (7, Timestamp(2.5))
    assert call(functools.partial(Typed().method, 7), 2.5) == (7, Timestamp(2.5), ())
    assert call(functools.partial(Typed(), 7), 2.5) == (7, Timestamp(2.5))


def returns_something_for_the_type_checker(count: "int") -> "Awaitable[None]":
    return count  # type: ignore[return-value]


def test_the_return_annotation_does_not_matter():
    # it names what is imported under TYPE_CHECKING only, and has nothing to do with the arguments
    assert call(returns_something_for_the_type_checker, 3) == 3


def keyword_annotation_that_is_unknown(count: "int", *, log: "NotDefinedAnywhere" = None):  # type: ignore[name-defined]  # noqa: F821
    return count


def test_the_annotation_of_a_keyword_does_not_matter():
    assert call(keyword_annotation_that_is_unknown, 3) == 3


def unknown(count: "NotDefinedAnywhere", other):  # type: ignore[name-defined]  # noqa: F821
    raise AssertionError


def test_an_annotation_that_cannot_be_evaluated():
    with pytest.raises(TypeError, match="cannot be evaluated.*NotDefinedAnywhere"):
        adapt(unknown, 5)


class InText:
    """A class whose instances are made from the arguments."""

    def __init__(self, timestamp: "Timestamp", text: "str" = "none"):
        self.found = (timestamp, text)


def test_a_class_as_callback_with_annotations_in_text():
    assert call(InText, 2.5, "two").found == (Timestamp(2.5), "two")


@pytest.mark.parametrize("type_", [object, list, dict, type(None), list[int], "so or int", 5, complex, type])
def test_a_type_that_is_not_registered(type_):
    def callback(a, b):
        raise AssertionError

    callback.__annotations__["b"] = type_
    for major in (4, 5):
        with pytest.raises(TypeError):
            adapt(callback, major)


def test_message_among_other_parameters_is_no_type_of_an_argument():
    def callback(message: Message, count: int):
        raise AssertionError

    with pytest.raises(TypeError, match="Message"):
        adapt(callback, 5)


class Fraction:
    def __init__(self, top, bottom):
        self.parts = (top, bottom)


def decode_fraction(raw):
    top, bottom = raw.split(b"/")
    return Fraction(int(top), int(bottom))


register_type(Fraction, lambda value: b"%d/%d" % value.parts, decode_fraction)


def test_a_registered_type():
    def callback(fraction: Fraction):
        return fraction.parts

    assert call(callback, b"2/3") == (2, 3)


# Arguments that do not fit


@pytest.mark.parametrize(
    ("callback", "args", "text"),
    [
        (lambda a, b: None, (1,), "1 arguments, but the callback takes 2"),
        (lambda a, b: None, (1, 2, 3), "3 arguments, but the callback takes 2"),
        (lambda a, b=None: None, (), "0 arguments, but the callback takes 1 to 2"),
        (lambda a, b=None: None, (1, 2, 3), "3 arguments, but the callback takes 1 to 2"),
        (lambda a, b, *c: None, (1,), "1 arguments, but the callback takes at least 2"),
    ],
)
def test_the_wrong_number(callback, args, text):
    with pytest.raises(Misfit, match=f"^{text}$"):
        call(callback, *args)


@pytest.mark.parametrize(
    ("type_", "raw"),
    [
        (int, b"1.5"),
        (int, b""),
        (int, b"1_0"),
        (int, b"9" * 5000),
        (float, b"x"),
        (bool, b"2"),
        (Timestamp, b"now"),
        (str, b"\xff"),
        (Colour, b"green"),
        (Address, b"nowhere"),
        (Optional[int], b"x"),
        (Fraction, b"1/x"),
        (Fraction, b"1"),
        (Fraction, b"1/2/3"),
    ],
)
def test_wrong_values(type_, raw):
    def callback(first: int, it):
        raise AssertionError("called all the same")

    callback.__annotations__["it"] = type_
    with pytest.raises(Misfit):
        call(callback, 1, raw)

    def rest(first: int, *its):
        raise AssertionError("called all the same")

    rest.__annotations__["its"] = type_
    with pytest.raises(Misfit):
        call(rest, 1, raw)


def test_a_registered_type_may_raise_anything():
    class Odd:
        pass

    def decode(raw):
        raise KeyError(raw)

    register_type(Odd, lambda value: b"", decode)

    def callback(odd: Odd):
        raise AssertionError

    with pytest.raises(Misfit):
        call(callback, 1)


def test_what_the_callback_raises_is_its_own():
    def callback(count: int):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$") as caught:
        call(callback, 1)
    assert not isinstance(caught.value, Misfit)
    with pytest.raises(TypeError):
        call(lambda message: message + 1, 1)


def test_the_arguments_are_the_callbacks_own():
    """One that changes them changes nothing for the next."""

    def greedy(first: bytes, *rest: bytes):
        return first, rest

    raw = inform(1, 2, 3)
    one, other = adapt(greedy, 5), adapt(lambda *args: args[0].arguments, 5)
    assert one(raw) == (b"1", (b"2", b"3"))
    assert other(raw) == [b"1", b"2", b"3"]
    typed_call = adapt(typed, 5)
    raw = inform(1, 2.5)
    assert typed_call(raw) == typed_call(raw) == (1, 2.5)
    assert raw.arguments == [b"1", b"2.5"]


@given(st.lists(st.integers(), max_size=6), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_any_number_of_parameters(values, required, optional, rest):
    """A Misfit, or a call as Python itself would make it."""
    names = [f"a{i}: int" for i in range(required)] + [f"b{i}: int = -1" for i in range(optional)]
    names += ["*rest: int"] if rest else []
    scope = {}
    exec(f"def callback({', '.join(names)}): return locals()", scope)
    callback = scope["callback"]
    try:
        expected = callback(*values)
    except TypeError:
        with pytest.raises(Misfit):
            call(callback, *values)
    else:
        assert call(callback, *values) == expected


# Through a client


@pytest.mark.gen_test
@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
async def test_through_a_client(device, protocol):
    device.protocol = protocol
    got = []
    message_only, times, alone = [], [], mock.AsyncMock()
    async with katcp_tornado.Client(device.host, device.port) as client:
        client.add_inform_callback("tick", message_only.append)
        client.add_inform_callback("tick", lambda *args: got.append(args[0]))
        client.add_inform_callback("tick", alone)

        async def typed_callback(timestamp: Timestamp, count: int, *rest: bytes):
            times.append((timestamp, count, rest))

        client.add_inform_callback("tick", typed_callback)
        await client.wait_connected()
        device.inform_all("tick", Timestamp(1_600_000_000.5), 3, "x")
        message = await client.wait_inform("tick")
        assert message_only == got == [message]
        await device.io_loop.idle()
        assert times == [(1_600_000_000.5, 3, (b"x",))]
        alone.assert_awaited_once_with(message)


@pytest.mark.gen_test
async def test_a_misfit_is_logged_and_the_others_hear(device, caplog):
    heard, misfits = [], []
    async with katcp_tornado.Client(device.host, device.port) as client:

        def picky(count: int):
            misfits.append(count)

        client.add_inform_callback("tick", picky)
        client.add_inform_callback("tick", heard.append)
        await client.wait_connected()
        for args in (("one",), (), (1, 2), (4,)):
            device.inform_all("tick", *args)
            await client.wait_inform("tick")
            await gen.sleep(61)  # the log has a line a minute for each inform
        assert misfits == [4]
        assert len(heard) == 4
        assert client.is_connected
    records = [record for record in caplog.records if "does not fit" in record.message]
    assert [record.levelno for record in records] == [logging.WARNING] * 3
    for record, line in zip(records, ("#tick one", "#tick", "#tick 1 2")):
        assert record.name == "katcp_tornado"
        assert "picky" in record.message and record.message.endswith(line)
        assert record.exc_info is None


@pytest.mark.gen_test
async def test_the_version_decides_anew_at_each_connection(device):
    times = []
    async with katcp_tornado.Client(device.host, device.port) as client:
        client.add_inform_callback("tick", lambda timestamp, count: None)  # it may stand beside others

        def tick(timestamp: Timestamp, count: int):
            times.append(timestamp)

        client.add_inform_callback("tick", tick)
        for protocol in ("5.1-MIB", "4", "5.0-M"):
            device.protocol = protocol
            await client.wait_connected()
            device.inform_all("tick", Timestamp(2.5), 1)
            await client.wait_inform("tick")
            device.drop_all()
            await client.wait_disconnected()
    assert times == [2.5, 2.5, 2.5]


def test_keywords_alone_take_no_arguments():
    calls = []
    adapted = adapt(lambda **kwargs: calls.append(kwargs), 5)
    adapted(inform())
    assert calls == [{}]
    with pytest.raises(Misfit):
        adapted(inform(b"1"))
