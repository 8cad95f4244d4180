"""The options of a client: what is accepted, what is refused, and by which name."""

from __future__ import annotations

import dataclasses
import decimal
import inspect
import math
import ssl
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.netutil import Resolver

from katcp_tornado import Backoff, Client, ProtocolFlags
from katcp_tornado.connection.options import DEFAULTS, Options, check_address, seconds

HUGE = pytest.param(10**400, id="huge")
MIB = 1024**2
#: The defaults that are promised.
PROMISED: dict[str, Any] = {
    "auto_reconnect": True,
    "backoff": Backoff(),
    "connect_timeout": 10.0,
    "handshake_timeout": 10.0,
    "request_timeout": 30.0,
    "watchdog": None,
    "watchdog_timeout": 5.0,
    "keepalive": True,
    "drain_timeout": 30.0,
    "limit": 32 * MIB,
    "max_write_buffer": 32 * MIB,
    "max_reply": 256 * MIB,
    "assume_protocol": None,
    "ssl_options": None,
    "resolver": None,
}
TIMES = ["connect_timeout", "handshake_timeout", "request_timeout", "watchdog", "drain_timeout"]
SIZES = ["limit", "max_write_buffer", "max_reply"]


def make(**options: Any) -> Options:
    return Options(**options)


def test_the_promised_defaults() -> None:
    options = Options()
    assert {name: getattr(options, name) for name in PROMISED} == PROMISED


def test_the_client_has_the_same_defaults() -> None:
    parameters = inspect.signature(Client).parameters
    assert {name: parameters[name].default for name in PROMISED} == PROMISED
    for field in dataclasses.fields(Options):
        assert parameters[field.name].default == field.default, field.name
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY


def test_they_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().limit = 5  # type: ignore[misc]


# Times


@pytest.mark.parametrize("name", [*TIMES, "watchdog_timeout"])
@pytest.mark.parametrize("value", [1, 2.5, Fraction(1, 3), 1e-9, 1e300, 10**300])
def test_any_real_number_of_seconds(name: str, value: Any) -> None:
    kept = getattr(make(**{name: value}), name)
    assert kept == float(value)
    assert type(kept) is float


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [None, math.inf, HUGE])
def test_no_limit(name: str, value: Any) -> None:
    assert getattr(make(**{name: value}), name) is None


@pytest.mark.parametrize("value", [math.inf, HUGE])
def test_the_watchdog_waits_no_eternity(value: Any) -> None:
    with pytest.raises(ValueError, match="^watchdog_timeout must be finite"):
        make(watchdog_timeout=value)
    with pytest.raises(TypeError, match="^watchdog_timeout must be a number of seconds, not NoneType"):
        make(watchdog_timeout=None)


@pytest.mark.parametrize("name", [*TIMES, "watchdog_timeout"])
@pytest.mark.parametrize("value", [0, 0.0, -1, -1e-9, -math.inf, math.nan, pytest.param(-(10**300), id="-huge")])
def test_times_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be more than 0 s"):
        make(**{name: value})


def test_a_number_below_all_floats() -> None:
    with pytest.raises(ValueError, match="^watchdog must be more than 0 s"):
        make(watchdog=-(10**400))


@pytest.mark.parametrize("name", [*TIMES, "watchdog_timeout"])
@pytest.mark.parametrize("value", ["10", b"10", True, False, 1j, [1], decimal.Decimal(1), object()])
def test_seconds_are_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a number of seconds"):
        make(**{name: value})


def test_seconds_where_zero_makes_sense() -> None:
    assert seconds("timeout", 0, zero=True) == 0.0
    with pytest.raises(ValueError, match="^timeout must be at least 0 s"):
        seconds("timeout", -1, zero=True)
    with pytest.raises(ValueError, match="^timeout must be at least 0 s"):
        seconds("timeout", math.nan, zero=True)


# Sizes


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    for value in (1, 2**40):
        assert getattr(make(**{name: value}), name) == value
    for value in (0, -1, 2**40 + 1, 10**30, 10**5000, -(10**5000)):
        with pytest.raises(ValueError, match=f"^{name} must be a number of bytes between 1 and"):
            make(**{name: value})
    wrong: Any
    for wrong in (None, 1.0, "1", True, math.inf):
        with pytest.raises(TypeError, match=f"^{name} must be an int"):
            make(**{name: wrong})


# The others


@pytest.mark.parametrize("name", ["auto_reconnect", "keepalive"])
@pytest.mark.parametrize("value", [None, 0, 1, "yes"])
def test_switches_are_bools(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a bool"):
        make(**{name: value})


@pytest.mark.parametrize("value", [None, 1.0, "slow", Backoff])
def test_backoff(value: Any) -> None:
    backoff = Backoff(first=3)
    assert make(backoff=backoff).backoff is backoff
    with pytest.raises(TypeError, match="^backoff must be a Backoff"):
        make(backoff=value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("assume_protocol", "5.1-MIB"),
        ("assume_protocol", (5, 1, frozenset())),
        ("ssl_options", {"certfile": "x"}),
        ("ssl_options", True),
        ("resolver", "8.8.8.8"),
        ("resolver", object()),
    ],
)
def test_objects_of_the_right_kind(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a .* or None"):
        make(**{name: wrong})


class Nowhere(Resolver):
    def resolve(self, *args: Any) -> Any:
        raise AssertionError("nobody has asked")


def test_objects_are_kept_as_they_are() -> None:
    context = ssl.create_default_context()
    resolver = Nowhere()
    flags = ProtocolFlags(5, 0, frozenset("M"))
    options = Options(assume_protocol=flags, ssl_options=context, resolver=resolver)
    assert options.assume_protocol is flags
    assert options.ssl_options is context
    assert options.resolver is resolver


@pytest.mark.parametrize("major", [3, 6, 0])
def test_a_protocol_that_we_do_not_speak_cannot_be_assumed(major: int) -> None:
    assert make(assume_protocol=ProtocolFlags(4, 0)).assume_protocol == (4, 0, frozenset())
    with pytest.raises(ValueError, match="^assume_protocol must have major version 4 or 5"):
        make(assume_protocol=ProtocolFlags(major, 0))


# Addresses


@pytest.mark.parametrize("port", [1, 7147, 65535, "7147", "1", "65535", "007147"])
def test_ports(port: Any) -> None:
    assert check_address("localhost", port) == int(port)
    assert type(check_address("localhost", port)) is int


def test_a_port_of_another_integral_type() -> None:
    class Port(int):
        pass

    assert type(check_address("localhost", Port(7147))) is int


@pytest.mark.parametrize(
    "port",
    [
        *(0, -1, 65536, 70000, 10**30, "0", "65536", "", " 7147", "7147 ", "+7147", "-1", "0x10", "7_147", "http"),
        *("7147.0", "\u0667\u0661\u0664\u0667", "²", "1\x00", pytest.param("9" * 5000, id="nines")),
    ],
)
def test_ports_that_cannot_be(port: Any) -> None:
    with pytest.raises(ValueError):
        check_address("localhost", port)


@pytest.mark.parametrize("port", [0, 65536, "0", "http", "", HUGE, pytest.param(10**5000, id="digits"), "9" * 5000])
def test_the_error_names_the_port(port: Any) -> None:
    with pytest.raises(ValueError, match="^port must be"):
        check_address("localhost", port)


@pytest.mark.parametrize("port", [None, 7147.0, True, b"7147", [7147], 1j])
def test_ports_of_the_wrong_type(port: Any) -> None:
    with pytest.raises(TypeError, match="^port must be an int"):
        check_address("localhost", port)


@given(st.integers())
def test_exactly_the_ports_of_tcp(port: int) -> None:
    if 1 <= port <= 65535:
        assert check_address("localhost", port) == port
    else:
        with pytest.raises(ValueError, match="^port "):
            check_address("localhost", port)


@pytest.mark.parametrize("host", [None, b"localhost", 127, ("localhost",), True])
def test_hosts_of_the_wrong_type(host: Any) -> None:
    with pytest.raises(TypeError, match="^host must be a str"):
        check_address(host, 7147)


def test_a_host_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="^host must not be empty"):
        check_address("", 7147)


@pytest.mark.parametrize(
    "host",
    [
        "foo..bar",
        "a" * 64 + ".org",
        "\x00",
        "\ud800",
        ".",
        "x" * 10_000,
        "::1",
        "fe80::1%eth0",
        "::ffff:1.2.3.4",
        "device.example.",
    ],
)
def test_whether_a_host_exists_is_not_asked_here(host: str) -> None:
    assert check_address(host, 7147) == 7147


@pytest.mark.parametrize(
    ("host", "mistake"),
    [
        ("no such host", "white space"),
        (" host", "white space"),
        ("host\n", "white space"),
        ("http://host/", "scheme"),
        ("host/path", "slash"),
        ("localhost:7147", "port"),
        ("[::1]", "brackets"),
        ("[::1]:7147", "brackets"),
        ("host:", "port"),
        ("a:b:c", "colons"),
        ("host:7147:7148", "colons"),
        ("1:2:3:4:5:6:7:8:9", "colons"),
        ("::1%", "colons"),
    ],
)
def test_what_can_be_no_host(host: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=f"^host must be .*{mistake}"):
        check_address(host, 7147)


@pytest.mark.parametrize(
    "options",
    [{"watchdog": 0}, {"limit": 0}, {"backoff": 5}, {"ssl_options": True}, {"io_loop": 5}, {"nonsense": 1}],
)
def test_a_client_checks_them_before_anything_happens(options: dict[str, Any]) -> None:
    # ... there is not even a loop here
    (name,) = options
    with pytest.raises((TypeError, ValueError), match=name):
        Client("localhost", 7147, **options)
    with pytest.raises((TypeError, ValueError), match=name):
        Client.connect("localhost", 7147, **options)
    with pytest.raises(TypeError, match="unknown option 'limti'; did you mean 'limit'"):
        Client("localhost", 7147, limti=5)  # type: ignore[call-arg]


def test_clients_with_default_options_share_them() -> None:
    assert Options.of({"limit": DEFAULTS.limit, "keepalive": True, "ssl_options": None}) is DEFAULTS
    assert Options.of({"limit": 5, "keepalive": True}) == Options(limit=5)
    with pytest.raises(TypeError, match="keepalive"):
        Options.of({"keepalive": 1})  # type: ignore[typeddict-item]  # equal to the default, and wrong all the same
