"""The greeting, line by line: what is decided, and that no stage forgets a line."""

from __future__ import annotations

import itertools

import pytest

from katcp_tornado import ProtocolError
from katcp_tornado.protocol.greeting import GREETING, Greeting, Line, Stage
from katcp_tornado.wire.version import V4, ProtocolFlags

V51 = ProtocolFlags(5, 1, frozenset("MIB"))


def test_a_protocol_line_ends_every_stage() -> None:
    assert set(GREETING) == set(Stage)
    for stage, row in GREETING.items():
        assert (row.get(Line.PROTOCOL) is Stage.ANNOUNCED) == (stage is not Stage.ANNOUNCED)


@pytest.mark.parametrize("assumed", [False, True])
@pytest.mark.parametrize("lines", list(itertools.product(["version", "build-state", "protocol", "patience"], repeat=3)))
def test_what_is_decided(lines: tuple[str, ...], assumed: bool) -> None:
    """The first protocol line wins; without one, two different v4 lines or one and patience make a v4 device."""
    greeting = Greeting()
    if assumed:
        greeting.assume()
    announced = None
    for line in lines:
        if line == "protocol":
            announced = greeting.protocol_line(["5.1-MIB"]) or announced
        elif line == "patience":
            greeting.out_of_patience()
        else:
            greeting.v4_line(line.encode())
    before = list(itertools.takewhile(lambda line: line != "protocol", lines))
    both = {"version", "build-state"} <= set(before)
    half = next((i for i, line in enumerate(before) if line != "patience"), len(before))
    alone = not assumed and "patience" in before[half:]
    assert announced == (V51 if "protocol" in lines else None)
    assert greeting.decided() == (V4 if (both or alone) and announced is None else None)
    assert greeting.is_assumed == (assumed and announced is None and not both)


@pytest.mark.parametrize("words", [[], ["6.0"], ["x"]])
def test_a_version_that_is_not_spoken(words: list[str]) -> None:
    with pytest.raises(ProtocolError):
        Greeting().protocol_line(words)
