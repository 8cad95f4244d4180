"""Messages as lines of bytes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from katcp_tornado.wire.message import MAX_MID, Message, MessageType, encode_name, printable
from katcp_tornado.wire.values import Address, Timestamp

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

types = st.sampled_from(list(MessageType))
names = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(f"{LETTERS}0123456789-", max_size=12))
mids = st.none() | st.integers(1, MAX_MID) | st.sampled_from([1, MAX_MID])
#: Any bytes, and above all those that mean something.
arguments = st.lists(
    st.binary(max_size=20) | st.text(" \\\t\r\n\0\x1b@_?!#[]10e", max_size=6).map(str.encode), max_size=6
)
messages = st.builds(lambda mtype, name, args, mid: Message(mtype, name, *args, mid=mid), types, names, arguments, mids)


@given(types, names, arguments, mids)
def test_round_trip(mtype: MessageType, name: str, args: list[bytes], mid: int | None) -> None:
    message = Message(mtype, name, *args, mid=mid)
    assert (message.mtype, message.name, message.arguments, message.mid) == (mtype, name, args, mid)
    parsed = Message.parse(bytes(message))
    assert (parsed.mtype, parsed.name, parsed.arguments, parsed.mid) == (mtype, name, args, mid)
    assert parsed == message
    assert bytes(parsed) == bytes(message)


@given(messages)
def test_a_message_is_one_line(message: Message) -> None:
    # Whatever its arguments hold, it cannot smuggle in a second request.
    line = bytes(message)
    assert line.endswith(b"\n")
    body = line[:-1]
    assert not any(byte in body for byte in b"\n\r\0\t\x1b")
    assert body.count(b" ") == len(message.arguments)


@given(messages)
def test_str_is_a_line_for_a_log(message: Message) -> None:
    text = str(message)
    assert text.isascii() and text.isprintable()
    assert text[0] in "?!#"
    assert repr(message) == f"<Message {text}>"


@given(st.binary())
def test_printable(raw: bytes) -> None:
    text = printable(raw)
    assert text.isascii() and text.isprintable()
    if raw.isascii() and raw.decode("ascii").isprintable():
        assert text == raw.decode("ascii")


def test_printable_shows_what_it_cannot_print() -> None:
    assert printable(b"a\n\r\t\0\x1b\x7f\xff ~") == r"a\x0a\x0d\x09\x00\x1b\x7f\xff ~"


@given(messages, messages)
def test_equality(one: Message, other: Message) -> None:
    assert (one == other) is (bytes(one) == bytes(other))
    assert one == Message.parse(bytes(one))


def test_differences() -> None:
    message = Message.request("a", b"x", mid=1)
    for other in (
        Message.reply("a", b"x", mid=1),
        Message.inform("a", b"x", mid=1),
        Message.request("b", b"x", mid=1),
        Message.request("A", b"x", mid=1),
        Message.request("a", b"y", mid=1),
        Message.request("a", b"x", b"", mid=1),
        Message.request("a", mid=1),
        Message.request("a", b"x", mid=2),
        Message.request("a", b"x"),
        bytes(message),
        str(message),
        None,
    ):
        assert message != other
    assert message == Message.request("a", "x", mid=1)
    with pytest.raises(TypeError):
        hash(message)


@given(messages, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickle_and_copy(message: Message, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(message, protocol)) == message
    assert copy.copy(message) == message
    assert copy.deepcopy(message) == message


@given(messages)
def test_wrap(message: Message) -> None:
    view = Message.wrap(message._raw)
    assert view == message
    assert view is not message
    assert bytes(view) == bytes(message)


@given(names, arguments, mids)
def test_shorthands(name: str, args: list[bytes], mid: int | None) -> None:
    for make, mtype, start in (
        (Message.request, MessageType.REQUEST, b"?"),
        (Message.reply, MessageType.REPLY, b"!"),
        (Message.inform, MessageType.INFORM, b"#"),
    ):
        message = make(name, *args, mid=mid)
        assert message == Message(mtype, name, *args, mid=mid)
        assert bytes(message).startswith(start + name.encode())
        assert (b"[%d]" % mid in bytes(message)) if mid else not bytes(message)[1:].startswith(name.encode() + b"[")


def test_on_the_wire() -> None:
    message = Message.request(
        "set-rate", "ant 1", 5, 0.5, True, Timestamp(1.5), Address("::1", 80), b"", "\u00e4", mid=12
    )
    assert bytes(message) == b"?set-rate[12] ant\\_1 5 0.5 1 1.5 [::1]:80 \\@ \xc3\xa4\n"
    assert str(message) == "?set-rate[12] ant\\_1 5 0.5 1 1.5 [::1]:80 \\@ \\xc3\\xa4"
    assert bytes(Message.inform("x")) == b"#x\n"
    assert bytes(Message.reply("x", b" \\\0\n\r\x1b\t")) == b"!x \\_\\\\\\0\\n\\r\\e\\t\n"


@given(st.binary(min_size=256, max_size=256))
def test_every_byte_survives(raw: bytes) -> None:
    everything = bytes(range(256))
    assert Message.parse(bytes(Message.request("a", everything, raw))).arguments == [everything, raw]


# Parsing.


@pytest.mark.parametrize(
    "line",
    [
        b"?a[3] b c",
        b"?a[3] b c\n",
        b"?a[3] b c\r",
        b"?a[3] b c\r\n",
        b"?a[3]\tb \t  c",
        b"?a[3] b c  \t\n",
        b"?a[3] b c\n\n",
    ],
)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_ends_and_separators(line: bytes, kind: Any) -> None:
    assert Message.parse(kind(line)) == Message.request("a", b"b", b"c", mid=3)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"  \t\n", b"a", b"?", b"?\n", b"!", b"#", b"! x", b"??a", b"!?x invalid", b"? a", b"?1a", b"?-a",
        b"?a_b", b"?a\xff", b"?a[", b"?a[]", b"?a[0]", b"?a[007]", b"?a[-1]", b"?a[abc]", b"?a[1", b"?a[1]]", b"?a[1]b",
        b"?a[2147483648]", b"?a[99999999999999999999]", b"?a[ 1]", b"?a \\", b"?a \\q", b"?a \\x00", b"?a b\0",
        b"?a b\x1b", b"@a", b"\xff?a", b"?a\n?b", b"?a\n?b\n", b"?a\r?b", b"\n?a\n?b",
    ],
)  # fmt: skip
def test_no_message(line: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        Message.parse(line)
    text = str(caught.value)
    assert text.isascii() and text.isprintable()
    assert printable(line) in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"?a [1", [b"[1"]),
        (b"?a ?b", [b"?b"]),
        (b"?a \\@", [b""]),
        (b"?a x\\@ \\@y", [b"x", b"y"]),  # it stands for nothing, wherever it stands
        (b"?a \xff\x80", [b"\xff\x80"]),
    ],
)
def test_odd_messages(line: bytes, expected: list[bytes]) -> None:
    assert Message.parse(line).arguments == expected


@pytest.mark.parametrize("line", ["?a", None, 5, [b"?a"], Message.request("a")], ids=repr)
def test_only_bytes_are_parsed(line: Any) -> None:
    with pytest.raises(TypeError):
        Message.parse(line)


@given(st.binary())
def test_rubbish_is_a_value_error_or_a_message(line: bytes) -> None:
    try:
        message = Message.parse(line)
    except ValueError as exc:
        assert str(exc).isascii() and str(exc).isprintable()
        return
    assert Message.parse(bytes(message)) == message


@given(messages, st.data())
def test_a_broken_message_is_a_value_error_or_a_message(message: Message, data: st.DataObject) -> None:
    line = bytearray(bytes(message))
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    assume(bytes(line) != bytes(message))
    try:
        other = Message.parse(line)
    except ValueError:
        return
    assert Message.parse(bytes(other)) == other


def test_a_long_line() -> None:
    message = Message.request("a", b"x" * 1_000_000)
    assert Message.parse(bytes(message)) == message


# Building.


@pytest.mark.parametrize(
    "name", ["", "1", "-a", "a_b", "a b", "a\n", "\u00e4", "a\u0661", "?a", "a[1]", "a\0", "a.b", " a"]
)
def test_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a KATCP name"):
        encode_name(name)
    with pytest.raises(ValueError, match="is not a KATCP name"):
        Message.request(name)


@pytest.mark.parametrize("name", [b"help", None, 5, ["help"], ("help",)], ids=repr)
def test_a_name_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError):
        Message.request(name)


@given(names)
def test_names(name: str) -> None:
    assert encode_name(name) == name.encode("ascii")
    assert Message.request(name).name == name


@pytest.mark.parametrize("mid", [0, -1, MAX_MID + 1, 10**100])
def test_no_id(mid: int) -> None:
    with pytest.raises(ValueError, match="mid must be between 1 and 2147483647"):
        Message.request("a", mid=mid)


@pytest.mark.parametrize("mid", [True, 1.0, "1", b"1"], ids=repr)
def test_an_id_is_an_int(mid: Any) -> None:
    with pytest.raises(TypeError, match="mid must be an int"):
        Message.request("a", mid=mid)


@pytest.mark.parametrize("mtype", [1, "REQUEST", b"?", None], ids=repr)
def test_a_type_is_a_message_type(mtype: Any) -> None:
    with pytest.raises(TypeError, match="mtype must be a MessageType"):
        Message(mtype, "a")


@pytest.mark.parametrize("argument", [None, [], {}, object(), 1j], ids=repr)
def test_arguments_are_katcp_values(argument: Any) -> None:
    with pytest.raises(TypeError):
        Message.request("a", b"fine", argument)


# Replies.


@pytest.mark.parametrize(
    ("message", "ok"),
    [
        (Message.reply("a", "ok"), True),
        (Message.reply("a", "ok", 1, mid=3), True),
        (Message.parse(b"!a ok\n"), True),
        (Message.reply("a"), False),
        (Message.reply("a", ""), False),
        (Message.reply("a", "fail", "ok"), False),
        (Message.reply("a", "invalid"), False),
        (Message.reply("a", "OK"), False),
        (Message.reply("a", "okay"), False),
        (Message.reply("ok"), False),
        (Message.request("a", "ok"), False),
        (Message.inform("a", "ok"), False),
        (Message.parse(b"#a ok\n"), False),
    ],
    ids=str,
)
def test_reply_ok(message: Message, ok: bool) -> None:
    assert message.reply_ok() is ok


@pytest.mark.parametrize("name", [b"help", None, 5, ["help"], {}])
def test_a_name_that_is_no_str(name: Any) -> None:
    with pytest.raises(TypeError, match=f"^name must be a str, not {type(name).__name__}$"):
        Message.request(name)
