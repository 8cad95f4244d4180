"""Protocol versions: what is understood, what is refused, and what the error says."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_tornado import ProtocolError, ProtocolFlags
from katcp_tornado.wire.version import MAJORS, V4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1-MIB", (5, 1, frozenset("MIB"))),
        ("5.1-BIMT", (5, 1, frozenset("BIMT"))),  # the order is the device's own
        ("5.0-M", (5, 0, frozenset("M"))),
        ("5.0-IM", (5, 0, frozenset("IM"))),
        ("5.0", (5, 0, frozenset())),
        ("5.0-", (5, 0, frozenset())),
        ("5.17-MIBx9Q", (5, 17, frozenset("MIBx9Q"))),  # unknown flags are accepted (F11)
        ("5.0-MMM", (5, 0, frozenset("M"))),
        ("4.0", (4, 0, frozenset())),
        ("05.01-M", (5, 1, frozenset("M"))),
    ],
)
def test_versions_that_are_understood(text: str, expected: tuple[int, int, frozenset[str]]) -> None:
    flags = ProtocolFlags.parse(text)
    assert flags == expected
    assert isinstance(flags, ProtocolFlags) and isinstance(flags.flags, frozenset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5.",
        ".5",
        "-",
        "5.1 MIB",
        "5.1-M I",
        "5.1-M-I",
        "5.1-M\n",
        "\n5.1-M",
        " 5.1",
        "5.1.0",
        "5,1",
        "+5.1",
        "5.-1",
        "v5.1",
        "5.1-Mü",
        "5.\u0661",  # an Arabic digit one
        "\uff15.1",  # a fullwidth digit five
        "katcp",
        "HTTP/1.1 400",
        "5.1\x00",
        "5." + "9" * 5000,
        "9" * 5000 + ".0",
        "x" * 100_000,
    ],
)
def test_versions_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ProtocolError, match="cannot be read") as caught:
        ProtocolFlags.parse(text)
    assert caught.value.version == text


@pytest.mark.parametrize("text", ["3.0", "6.0-MIB", "0.5", "50.1", "15.0-M", "999999.0"])
def test_versions_that_we_do_not_speak(text: str) -> None:
    with pytest.raises(ProtocolError, match="4 and 5") as caught:
        ProtocolFlags.parse(text)
    assert caught.value.version == text
    assert text in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        flags = ProtocolFlags.parse(text)
    except ProtocolError as exc:
        assert exc.version == text
    else:
        assert flags.major in MAJORS
        assert ProtocolFlags.parse(str(flags)) == flags


@given(st.sampled_from(MAJORS), st.integers(0, 999_999), st.frozensets(st.sampled_from("ABCIMTZabyz059")))
def test_str_is_what_the_device_would_send(major: int, minor: int, letters: frozenset[str]) -> None:
    flags = ProtocolFlags(major, minor, letters)
    assert ProtocolFlags.parse(str(flags)) == flags


def test_str() -> None:
    assert str(ProtocolFlags(5, 1, frozenset("MIB"))) == "5.1-BIM"
    assert str(ProtocolFlags(5, 0)) == "5.0"
    assert str(V4) == "4.0"


def test_supports() -> None:
    flags = ProtocolFlags.parse("5.1-MI")
    assert flags.supports("M") and flags.supports("I")
    assert not flags.supports("B") and not flags.supports("m") and not flags.supports("")


def test_v4_has_no_flags() -> None:
    assert ProtocolFlags(4, 0, frozenset()) == V4
    assert not any(V4.supports(letter) for letter in "MITB")


def test_it_is_a_value() -> None:
    flags = ProtocolFlags.parse("5.1-MIB")
    assert flags == ProtocolFlags.parse("5.1-BIM")
    assert hash(flags) == hash(ProtocolFlags.parse("5.1-BIM"))
    assert pickle.loads(pickle.dumps(flags)) == flags
    major, minor, letters = flags
    assert (major, minor, letters) == (5, 1, {"M", "I", "B"})  # type: ignore[comparison-overlap]
    with pytest.raises(AttributeError):
        flags.major = 4  # type: ignore[misc]
