"""The tree of exceptions, as it is promised."""

from __future__ import annotations

import copy
import pickle
import socket
import ssl
import sys
import traceback

import pytest
import tornado.util

from katcp_tornado import errors
from katcp_tornado.errors import (
    AddressErrors,
    ClientClosed,
    ConnectionLost,
    ConnectTimeout,
    DeviceDisconnected,
    DrainTimeout,
    FailReply,
    HandshakeTimeout,
    InvalidReply,
    KatcpError,
    LineTooLong,
    NotConnected,
    ProtocolError,
    QuorumNotReached,
    ReplyTooLarge,
    RequestTimeout,
    SensorNotFound,
    SensorValueError,
    WaitTimeout,
    WatchdogTimeout,
    WriteBufferFull,
    describe,
    own_copy,
    quoted,
)
from katcp_tornado.wire.message import Message

REPLY = Message.reply("test", "fail", "too hot", mid=7)
INFORMS = [Message.inform("test", "warm", mid=7)]

TREE: dict[type[KatcpError], tuple[type[BaseException], ...]] = {
    NotConnected: (BrokenPipeError,),
    WriteBufferFull: (),
    ConnectionLost: (ConnectionResetError,),
    ClientClosed: (ConnectionAbortedError,),
    QuorumNotReached: (),
    ReplyTooLarge: (),
    FailReply: (),
    InvalidReply: (),
    SensorNotFound: (LookupError,),
    SensorValueError: (ValueError,),
    ProtocolError: (ValueError,),
    LineTooLong: (ProtocolError, ValueError),
    DeviceDisconnected: (ConnectionResetError,),
    AddressErrors: (),
    RequestTimeout: (TimeoutError, tornado.util.TimeoutError),
    ConnectTimeout: (TimeoutError, tornado.util.TimeoutError),
    HandshakeTimeout: (TimeoutError, tornado.util.TimeoutError),
    WatchdogTimeout: (TimeoutError, tornado.util.TimeoutError),
    DrainTimeout: (TimeoutError, tornado.util.TimeoutError),
    WaitTimeout: (TimeoutError, tornado.util.TimeoutError),
}

EXAMPLES: list[KatcpError] = [
    NotConnected("no link"),
    WriteBufferFull("full"),
    ConnectionLost("lost", sent=True),
    ConnectionLost("lost"),
    ClientClosed(),
    ClientClosed("closed", sent=True),
    QuorumNotReached("quorum", {}),
    ReplyTooLarge("large"),
    FailReply("too hot", REPLY, INFORMS),
    InvalidReply("what?", REPLY, []),
    SensorNotFound("where?"),
    SensorValueError("what?"),
    ProtocolError("no KATCP", "9.9"),
    LineTooLong("long"),
    DeviceDisconnected("gone", "bye"),
    DeviceDisconnected("gone"),
    AddressErrors({"127.0.0.1:80": ConnectionRefusedError(111, "refused")}),
    RequestTimeout("late", sent=True),
    RequestTimeout("late"),
    ConnectTimeout("late"),
    HandshakeTimeout("late"),
    WatchdogTimeout("late"),
    DrainTimeout("late"),
    WaitTimeout("late"),
]


def public_errors() -> set[type[KatcpError]]:
    found = vars(errors).values()
    return {
        it for it in found if isinstance(it, type) and issubclass(it, KatcpError) and not it.__name__.startswith("_")
    }


def test_the_tree_is_whole() -> None:
    assert public_errors() == {*TREE, KatcpError}
    assert {type(exc) for exc in EXAMPLES} == set(TREE)


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_bases(cls: type[KatcpError]) -> None:
    assert issubclass(cls, (KatcpError, *TREE[cls]))
    assert all(issubclass(cls, base) for base in (KatcpError, *TREE[cls]))  # type: ignore[arg-type]
    # ... and no other builtin than those, so that `except` catches what it says
    builtin = {base for base in cls.__mro__ if base.__module__ == "builtins"}
    promised = {Exception, BaseException, object}.union(*(base.__mro__ for base in TREE[cls]))
    assert builtin == {base for base in promised if base.__module__ == "builtins"}


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_the_drawing_shows_it(cls: type[KatcpError]) -> None:
    assert errors.__doc__ is not None
    (line,) = [line for line in errors.__doc__.splitlines() if f" +-- {cls.__name__} " in f"{line} "]
    for base in TREE[cls]:
        if not issubclass(cls, TimeoutError) and base is not ProtocolError and cls is not LineTooLong:
            assert f"({base.__name__})" in line


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_has_a_docstring(cls: type[KatcpError]) -> None:
    assert cls.__doc__ and cls.__doc__ != cls.__mro__[1].__doc__


@pytest.mark.parametrize("cls", [cls for cls in TREE if issubclass(cls, TimeoutError)], ids=lambda cls: cls.__name__)
def test_timeouts_are_caught_in_every_way(cls: type[KatcpError]) -> None:
    for way in (KatcpError, TimeoutError, tornado.util.TimeoutError, OSError):
        with pytest.raises(way):
            raise cls("late")
    # Otherwise the class is fine on one Python and a TypeError at import on another.
    assert (tornado.util.TimeoutError is TimeoutError) == (sys.version_info >= (3, 11))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("exc", "sent"),
    [
        (NotConnected("x"), False),
        (WriteBufferFull("x"), False),
        (ConnectionLost("x"), False),
        (ConnectionLost("x", sent=True), True),
        (RequestTimeout("x"), False),
        (RequestTimeout("x", sent=True), True),
        (ClientClosed(), False),
        (ClientClosed(sent=True), True),
        (ReplyTooLarge("x"), True),
        (FailReply("x", REPLY, []), True),
        (InvalidReply("x", REPLY, []), True),
    ],
    ids=repr,
)
def test_sent(exc: KatcpError, sent: bool) -> None:
    assert exc.sent is sent  # type: ignore[attr-defined]


@pytest.mark.parametrize("exc", EXAMPLES, ids=lambda exc: type(exc).__name__)
def test_str_is_the_message(exc: KatcpError) -> None:
    assert str(exc)
    assert "\n" not in str(exc)
    if not isinstance(exc, AddressErrors):
        assert str(exc) == exc.args[0]
        assert not str(exc).startswith("("), "the repr of a tuple of arguments"


def test_attributes() -> None:
    fail = FailReply("too hot", REPLY, INFORMS)
    assert (fail.reply, fail.informs, str(fail)) == (REPLY, INFORMS, "too hot")
    assert ProtocolError("x").version is None
    assert ProtocolError("x", "9.9").version == "9.9"
    assert LineTooLong("x").version is None
    assert DeviceDisconnected("x").reason is None
    assert DeviceDisconnected("x", "bye").reason == "bye"
    cause = ConnectionRefusedError(111, "refused")
    many = AddressErrors({"[::1]:80": OSError("down"), "127.0.0.1:80": cause})
    assert many.errors["127.0.0.1:80"] is cause
    assert str(many) == "[::1]:80: OSError: down; 127.0.0.1:80: ConnectionRefusedError: [Errno 111] refused"


def same(one: BaseException, other: BaseException) -> bool:
    return type(one) is type(other) and str(one) == str(other)


@pytest.mark.parametrize("exc", EXAMPLES, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize(
    "duplicate", [own_copy, copy.copy, lambda exc: pickle.loads(pickle.dumps(exc))], ids=["own", "copy", "pickle"]
)
def test_duplicates_are_alike(exc: KatcpError, duplicate: object) -> None:
    other = duplicate(exc)  # type: ignore[operator]
    assert other is not exc
    assert same(exc, other)
    if not isinstance(exc, AddressErrors):
        assert other.args == exc.args
        assert vars(other) == vars(exc)


FOREIGN = [
    ConnectionRefusedError(111, "refused"),
    socket.gaierror(-2, "Name or service not known"),
    OSError(2, "no such file", "/tmp/x"),
    ssl.SSLError(1, "bad certificate"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    KeyError("x"),
    ValueError("x"),
]


def raised(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise exc from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("exc", [*EXAMPLES, *FOREIGN], ids=lambda exc: type(exc).__name__)
def test_own_copy(exc: BaseException) -> None:
    cause = raised(OSError("the cause"))
    original = raised(copy.copy(exc), cause)
    original.note = "mine"  # type: ignore[attr-defined]
    other = own_copy(original)
    assert other is not original
    assert type(other) is type(original)
    assert other.args == original.args
    assert str(other) == str(original)
    assert vars(other) == vars(original)
    for name in ("errno", "strerror", "filename"):
        assert getattr(other, name, None) == getattr(original, name, None)
    assert other.__cause__ is cause
    assert original.__traceback__ is not None
    assert other.__traceback__ is None
    assert other.__context__ is None


def test_own_copies_do_not_share_a_traceback() -> None:
    original = KatcpError("x")
    for _ in range(3):
        raised(own_copy(original))
    assert original.__traceback__ is None
    assert len(traceback.extract_tb(raised(own_copy(original)).__traceback__)) == 1


def test_own_copy_of_an_error_without_a_cause() -> None:
    assert own_copy(KatcpError("x")).__cause__ is None


class Particular(Exception):
    """Its arguments are not those of its constructor."""

    def __init__(self, *, host: str, port: int) -> None:
        super().__init__(f"{host}:{port}")
        self.host = host


class Decorated(Exception):
    """Its constructor changes the message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"cannot look up: {message}")


def test_own_copy_of_an_error_whose_constructor_takes_something_else() -> None:
    exc = Particular(host="a", port=1)
    other = own_copy(exc)
    assert isinstance(other, Particular)
    assert other is not exc
    assert (other.host, str(other)) == ("a", "a:1")


class Singular(Exception):
    """It can be made only in its own way."""

    def __new__(cls, *, host: str) -> Singular:
        return super().__new__(cls, host)

    def __init__(self, *, host: str) -> None:
        super().__init__(host)


def test_an_error_that_cannot_be_copied_is_raised_itself() -> None:
    exc = Singular(host="a")
    assert own_copy(exc) is exc


def test_own_copy_does_not_run_a_message_through_its_constructor_again() -> None:
    exc = Decorated("x")
    assert str(own_copy(exc)) == str(exc) == "cannot look up: x"


def test_describe() -> None:
    assert describe(None) == "no error"
    assert describe(ValueError("bad")) == "ValueError: bad"
    assert describe(ValueError()) == "ValueError"
    assert describe(ConnectTimeout("10 s")) == "ConnectTimeout: 10 s"
    assert describe(ConnectionRefusedError(111, "refused")) == "ConnectionRefusedError: [Errno 111] refused"
    assert describe(FailReply("too hot", REPLY, INFORMS)) == "FailReply: too hot"


def test_describe_shows_the_addresses() -> None:
    exc = raised(OSError("all failed"), AddressErrors({"127.0.0.1:80": ConnectTimeout("slow")}))
    assert describe(exc) == "OSError: all failed (127.0.0.1:80: ConnectTimeout: slow)"
    assert describe(raised(OSError("x"), ValueError("y"))) == "OSError: x"


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "Traceback:\n  line\n", "\x1b[2J", "a\x00b", "a\u2028b"])
def test_describe_is_one_line(text: str) -> None:
    # The message of a device, which may hold anything (a traceback, control characters of a terminal).
    described = describe(FailReply(text, REPLY, []))
    assert described.isprintable(), ascii(described)


LONG = ["x" * 10**6, "\xff" * 10**6, "\U0001f4a5" * 10**6, "\ud800" * 10**6, "\n" * 10**6]


@pytest.mark.parametrize("text", LONG, ids=ascii)
def test_the_text_of_an_error_is_short(text: str) -> None:
    fine = ValueError(text)
    examples = [
        KatcpError(text),
        NotConnected(text),
        RequestTimeout(text),
        ProtocolError(text),
        FailReply(text, REPLY, INFORMS * 1000),
        AddressErrors(dict.fromkeys(map(str, range(1000)), fine)),
        KatcpError(text, text),
    ]
    for exc in examples:
        assert len(str(exc).encode("utf-8", "surrogatepass")) < 1024
        assert len(describe(exc).encode("utf-8", "surrogatepass")) < 1024
    assert len(repr(examples[4])) < 11_000
    assert describe(fine).isprintable()
    assert str(KatcpError(text)).startswith(text[:200])
    assert str(KatcpError(text)).endswith("... (1000000 characters)")


@pytest.mark.parametrize("text", ["x" * 1000, "\xff" * 500, "\U0001f4a5" * 250])
def test_what_fits_is_not_shortened(text: str) -> None:
    assert str(KatcpError(text)) == text
    assert str(KatcpError(text + "x")) != text + "x"


def test_quoted() -> None:
    assert quoted(b"\xff") == r"b'\xff'"
    assert quoted("a\n") == r"'a\n'"
    assert quoted(b"x" * 101) == f"b'{'x' * 100}'... (101 bytes)"
    assert quoted("x" * 101) == f"'{'x' * 100}'... (101 characters)"
    assert quoted(10**5000) == "<int of too many digits>"
    assert len(quoted(["x" * 10**6])) <= 200
