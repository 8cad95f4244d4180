"""The codec's two faces, its extension module and its public interface, behave alike."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import katcp_codec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_tornado.wire import codec

CODEC_VERSION = tuple(int(part) for part in importlib.metadata.version("katcp-codec").split(".")[:3])


def load(flavour: str) -> ModuleType:
    """A module of its own from the source of katcp_tornado.wire.codec, imported where *flavour* is asked for."""
    saved = os.environ.pop("KATCP_TORNADO_CODEC", None)
    try:
        os.environ["KATCP_TORNADO_CODEC"] = flavour
        spec = importlib.util.spec_from_file_location(f"codec_{flavour}", codec.__file__)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        del os.environ["KATCP_TORNADO_CODEC"]
        if saved is not None:
            os.environ["KATCP_TORNADO_CODEC"] = saved
    return module


PUBLIC = load("public")
INNER = load("inner")
# With katcp-codec 0.2.0 both are public.
FLAVOURS = [pytest.param(PUBLIC, id="public"), pytest.param(INNER, id="inner" if INNER.INNER else "inner-is-public")]
both = pytest.mark.parametrize("flavour", FLAVOURS)


def plain(flavour: ModuleType, found: list[Any]) -> list[Any]:
    """What a parser returned, as values that can be compared across flavours."""
    return [
        ("error", str(it))
        if isinstance(it, ValueError)
        else (flavour.public_type(it), it.name, it.mid, list(it.arguments), bytes(it))
        for it in found
    ]


def parse(flavour: ModuleType, chunks: list[bytes], limit: int = 1000) -> tuple[list[Any], list[int]]:
    parser = flavour.Parser(limit)
    found, sizes = [], []
    for chunk in chunks:
        found += plain(flavour, parser.append(chunk))
        sizes.append(parser.buffer_size)
    return found, sizes


line = st.one_of(
    st.text("?!#ab10[]- \\_@n\t\0", max_size=12).map(str.encode),
    st.sampled_from([b"?a", b"!a[1] ok", b"#b x \\@ y\\_z", b"!", b"?a[0]", b"", b" ", b"#c \xff"]),
    st.binary(max_size=12),
)
streams = st.lists(st.tuples(line, st.sampled_from([b"\n", b"\r", b"\r\n", b""])), max_size=8).map(
    lambda pairs: b"".join(a + b for a, b in pairs)
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends)]


def test_the_flavours_are_what_they_say() -> None:
    assert PUBLIC.INNER is False
    assert PUBLIC.Parser is katcp_codec.Parser
    # 0.2.0 makes a new object of each message's type, so that it cannot be compared by identity.
    assert INNER.INNER is (CODEC_VERSION >= (0, 2, 1)), "katcp_codec has changed inside: read codec.py"
    assert codec.INNER is (INNER.INNER and os.environ.get("KATCP_TORNADO_CODEC") != "public")


@given(streams, st.lists(st.integers(0, 200), max_size=10), st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_gives_the_same(data: bytes, one: list[int], other: list[int]) -> None:
    expected, _ = parse(PUBLIC, [data])
    for flavour in (PUBLIC, INNER):
        for places in (one, other, range(len(data))):
            assert parse(flavour, cut(data, list(places)))[0] == expected
    assert parse(PUBLIC, cut(data, one)) == parse(INNER, cut(data, one))


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 60))
def test_random_bytes_never_raise(chunks: list[bytes], limit: int) -> None:
    assert parse(PUBLIC, chunks, limit) == parse(INNER, chunks, limit)
    for flavour in (PUBLIC, INNER):
        parser = flavour.Parser(limit)
        for chunk in chunks:
            for it in parser.append(chunk):
                assert isinstance(it, (ValueError, flavour.RawMessage))
            assert 0 <= parser.buffer_size <= limit


@both
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_buffer_may_be_used_again(flavour: ModuleType, kind: Any) -> None:
    buffer = bytearray(b"#a one\n#b tw")
    parser = flavour.Parser(100)
    (first,) = parser.append(kind(buffer))
    buffer[:] = b"x" * len(buffer)
    (second,) = parser.append(b"o\n")
    assert (first.name, first.arguments, second.name, second.arguments) == (b"a", [b"one"], b"b", [b"two"])


@both
def test_types_are_singletons(flavour: ModuleType) -> None:
    known = {b"?": flavour.REQUEST, b"!": flavour.REPLY, b"#": flavour.INFORM}
    public = {b"?": "REQUEST", b"!": "REPLY", b"#": "INFORM"}
    assert len({id(it) for it in known.values()}) == 3
    for start, mtype in known.items():
        (raw,) = flavour.Parser(100).append(start + b"a\n")
        assert raw.mtype is mtype
        member = katcp_codec.MessageType[public[start]]
        assert flavour.public_type(raw) is member
        assert flavour.RAW_TYPES[member] is mtype
        built = flavour.RawMessage(mtype, b"a", None, [])
        assert built.mtype is mtype
        assert bytes(built) == start + b"a\n"


@both
def test_the_shape_of_a_message(flavour: ModuleType) -> None:
    (raw,) = flavour.Parser(100).append(b"!a-b[7] x\\_y \\@ \xff\n")
    assert (raw.name, raw.mid, raw.arguments) == (b"a-b", 7, [b"x y", b"", b"\xff"])
    assert type(raw.name) is bytes and type(raw.mid) is int and type(raw.arguments) is list
    assert raw.arguments is raw.arguments, "not a copy each time"
    (raw,) = flavour.Parser(100).append(b"!a\n")
    assert raw.mid is None and raw.arguments == []


@both
def test_errors_are_in_their_place(flavour: ModuleType) -> None:
    found = flavour.Parser(100).append(b"#a\n!\n#b\n?c[0]\n\n#d\n")
    assert [getattr(it, "name", None) for it in found] == [b"a", None, b"b", None, b"d"]
    assert [isinstance(it, ValueError) for it in found] == [False, True, False, True, False]


@both
def test_an_endless_line(flavour: ModuleType) -> None:
    # It is not reported before its end, but the buffer shows it; and it never grows beyond the limit.
    parser = flavour.Parser(10)
    assert parser.append(b"#a " + b"x" * 7) == []
    assert parser.buffer_size == 10
    for _ in range(3):
        assert parser.append(b"x" * 1000) == []
        assert parser.buffer_size == 10
    found = parser.append(b"\n#b\n")
    assert isinstance(found[0], ValueError)
    assert found[1].name == b"b"
    assert parser.buffer_size == 0


@both
def test_the_buffer_counts_the_unfinished_line(flavour: ModuleType) -> None:
    parser = flavour.Parser(100)
    assert parser.buffer_size == 0
    parser.append(b"#a\n#bcd")
    assert parser.buffer_size == 4
    parser.append(b"ef\n")
    assert parser.buffer_size == 0


@both
def test_parsers_are_independent(flavour: ModuleType) -> None:
    one, other = flavour.Parser(100), flavour.Parser(100)
    one.append(b"#a x")
    (raw,) = other.append(b"#b\n")
    assert raw.name == b"b"
    (raw,) = one.append(b"y\n")
    assert (raw.name, raw.arguments) == (b"a", [b"xy"])


class NoInner:
    """Extension modules of a version of tomorrow."""

    class Renamed:
        pass

    class Raising:
        class Parser:
            def __init__(self, limit: int) -> None:
                raise RuntimeError("tomorrow")


@pytest.mark.parametrize("tomorrow", [None, NoInner.Renamed, NoInner.Raising])
def test_an_unknown_inside_is_left_alone(monkeypatch: pytest.MonkeyPatch, tomorrow: Any) -> None:
    monkeypatch.setattr(katcp_codec, "_lib", tomorrow)
    module = load("inner")
    assert module.INNER is False
    assert module.Parser is katcp_codec.Parser


@pytest.mark.slow
def test_the_environment_decides() -> None:
    # ... for the whole package: what is said of messages holds on the public interface, too.
    tests = Path(__file__).parent
    root = Path(codec.__file__).parent.parent
    of_messages = "test_round_trip or test_no_message or test_odd or test_reply_ok or test_pickle or test_wrap"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", of_messages, tests / "test_message.py"],
        check=False,
        env={**os.environ, "KATCP_TORNADO_CODEC": "public", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    code = "from katcp_tornado.wire import codec; print(codec.INNER)"
    for value, inner in (("public", False), ("", INNER.INNER)):
        env = {**os.environ, "KATCP_TORNADO_CODEC": value, "PYTHONPATH": str(root)}
        output = subprocess.run(
            [sys.executable, "-c", code], check=False, env=env, capture_output=True, text=True, timeout=60
        )
        assert output.stdout.strip() == str(inner), output.stderr
