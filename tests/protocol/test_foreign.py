"""Lines that are no KATCP: counted, and the first kept, however the chunks are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_tornado.protocol.foreign import ForeignLines
from katcp_tornado.wire.codec import Parser


def fed(chunks: list[bytes]) -> ForeignLines:
    parser, foreign = Parser(10_000), ForeignLines()
    for chunk in chunks:
        foreign.note(chunk, parser.append(chunk))
    return foreign


@given(st.lists(st.integers(0, 60)))
def test_the_cuts_do_not_matter(cuts: list[int]) -> None:
    data = b"#log info 1 a b\r\n\nHTTP/1.1 400 Bad \xff\r\n\r\nServer: x\r\n#ok\n"
    places = sorted({0, *cuts, len(data)})
    foreign = fed([data[start:end] for start, end in zip(places, places[1:])])
    assert (foreign.count, foreign.first) == (2, b"HTTP/1.1 400 Bad \xff")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"#version-connect x\n\n", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "; 1 line is no KATCP, the first is 'SSH-2.0-OpenSSH_9.2'"),
        (b"a\nb\n\x1b[2J\n", "; 3 lines are no KATCP, the first is 'a'"),
        (b"\x1b[2J\n", "; 1 line is no KATCP, the first is '\\x1b[2J'"),
    ],
)
def test_text(data: bytes, text: str) -> None:
    assert str(fed([data])) == text


def test_a_long_line_is_shown_in_part() -> None:
    assert len(str(fed([b"x" * 9000 + b"\n"]))) < 300
