"""The state diagram as SVG: boxes and arrows at right angles, without any tool but Python.

The states of a connection that makes progress stand in the middle, from top to bottom. The tall boxes to the
left and right are the states that each of them can fall into, so that nearly every arrow is one straight line.
What is drawn comes from the table of the library; only the places of the boxes are decided here. An arrow for
which there is no place is an error, never left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from katcp_tornado.connection.states import INITIAL, TRANSITIONS, State

MIDDLE = (State.CONNECTING, State.NEGOTIATING, State.CONNECTED)
LEFT = State.SLEEPING
RIGHT = State.CLOSED

SIDE_WIDTH, GAP, MIDDLE_WIDTH = 112, 180, 148
BOX_HEIGHT, ROW = 62, 142
TOP, MARGIN, BOTTOM = 48, 8, 52
FONT, LINE = 14, 17
LABEL_CHARACTERS = 22
COLOURS = {
    State.CONNECTING: "#3b82c4",
    State.NEGOTIATING: "#3b82c4",
    State.CONNECTED: "#2f9e5b",
    State.SLEEPING: "#c58a1b",
    State.CLOSED: "#8a8f98",
}
STYLE = f"""
.state-diagram text {{ font: {FONT}px sans-serif; fill: currentColor; text-anchor: middle; }}
.state-diagram text.state {{ font-weight: bold; letter-spacing: 0.4px; }}
.state-diagram text.beside {{ text-anchor: start; }}
.state-diagram path.arrow {{ fill: none; stroke: currentColor; stroke-width: 1.4; }}
.state-diagram .solid {{ fill: currentColor; }}
"""


class Box(NamedTuple):
    """A box; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def x(self) -> float:
        """The middle, from left to right."""
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        """The middle, from top to bottom."""
        return (self.top + self.bottom) / 2


def _places() -> dict[State, Box]:
    middle = MARGIN + SIDE_WIDTH + GAP
    right = middle + MIDDLE_WIDTH + GAP
    bottom = TOP + (len(MIDDLE) - 1) * ROW + BOX_HEIGHT
    places = {
        state: Box(middle, TOP + row * ROW, middle + MIDDLE_WIDTH, TOP + row * ROW + BOX_HEIGHT)
        for row, state in enumerate(MIDDLE)
    }
    places[LEFT] = Box(MARGIN, TOP, MARGIN + SIDE_WIDTH, bottom)
    places[RIGHT] = Box(right, TOP, right + SIDE_WIDTH, bottom)
    return places


def _text(x: float, y: float, text: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _box(state: State, box: Box) -> str:
    colour = COLOURS[state]
    shape = (
        '<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" rx="{:g}" '
        f'style="fill: {colour}; fill-opacity: {{}}; stroke: {colour}; stroke-width: 1.6"/>'
    )
    parts = [shape.format(box.left, box.top, box.right - box.left, box.bottom - box.top, 9, 0.14)]
    if not TRANSITIONS[state]:  # the end: a double frame
        parts.append(shape.format(box.left + 4, box.top + 4, box.right - box.left - 8, box.bottom - box.top - 8, 6, 0))
    parts.append(_text(box.x, box.y + FONT / 3, state.name, "state"))
    return "".join(parts)


def _arrow(old: State, new: State, *points: tuple[float, float]) -> str:
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="arrow" id="{old.value}-{new.value}" d="{path}" marker-end="url(#arrowhead)"/>'


def _across(old: State, new: State, why: str, places: Mapping[State, Box], taken: set[tuple[float, float]]) -> str:
    """Between a box of the middle and a tall one: a straight line, its words above it."""
    one, other = places[old], places[new]
    row = one if old in MIDDLE else other
    start, end = (one.right, other.left) if one.x < other.x else (one.left, other.right)
    # Two arrows between the same two boxes: the one to the middle above the other.
    both = new in TRANSITIONS and old in TRANSITIONS[new] and new in TRANSITIONS[old]
    y = row.y + (0 if not both else -BOX_HEIGHT * 0.26 if new in MIDDLE else BOX_HEIGHT * 0.3)
    lines = textwrap.wrap(why, LABEL_CHARACTERS)
    below = both and new not in MIDDLE
    first = y + LINE if below else y - 7 - (len(lines) - 1) * LINE
    middle = (start + end) / 2
    if (middle, y) in taken:
        raise ValueError(f"two arrows in one place: {old} to {new}")
    taken.add((middle, y))
    words = "".join(_text(middle, first + number * LINE, line) for number, line in enumerate(lines))
    return _arrow(old, new, (start, y), (end, y)) + words


def _down(old: State, new: State, why: str, places: Mapping[State, Box]) -> str:
    """From one box of the middle to the next, its words beside it."""
    one, other = places[old], places[new]
    lines = textwrap.wrap(why, 13)
    first = (one.bottom + other.top) / 2 + FONT / 3 - (len(lines) - 1) * LINE / 2
    words = "".join(_text(one.x + 9, first + number * LINE, line, "beside") for number, line in enumerate(lines))
    return _arrow(old, new, (one.x, one.bottom), (other.x, other.top)) + words


def _around(old: State, new: State, why: str, places: Mapping[State, Box]) -> str:
    """From the left to the right: below everything, its words above the line."""
    one, other = places[old], places[new]
    y = one.bottom + BOTTOM - 18
    points = (one.x, one.bottom), (one.x, y), (other.x, y), (other.x, other.bottom)
    return _arrow(old, new, *points) + _text((one.x + other.x) / 2, y - 7, why)


def draw() -> str:
    """The diagram of `TRANSITIONS`, an ``svg`` element."""
    places = _places()
    missing = set(State) ^ set(places)
    if missing:
        raise ValueError(f"the state diagram has no place for {missing}")
    taken: set[tuple[float, float]] = set()
    parts = []
    for old, row in TRANSITIONS.items():
        for new, why in row.items():
            if old in MIDDLE and new in MIDDLE:
                if MIDDLE.index(new) != MIDDLE.index(old) + 1:
                    raise ValueError(f"the state diagram has no place for an arrow from {old} to {new}")
                parts.append(_down(old, new, why, places))
            elif old in MIDDLE or new in MIDDLE:
                parts.append(_across(old, new, why, places, taken))
            elif (old, new) == (LEFT, RIGHT):
                parts.append(_around(old, new, why, places))
            else:
                raise ValueError(f"the state diagram has no place for an arrow from {old} to {new}")
    parts += [_box(state, box) for state, box in places.items()]
    first = places[INITIAL]
    parts.append(f'<circle class="solid" cx="{first.x:g}" cy="12" r="6"/>')
    parts.append(
        f'<path class="arrow" d="M{first.x:g} 18 L{first.x:g} {first.top:g}" marker-end="url(#arrowhead)"/>'
        + _text(first.x + 14, 17, "a new client", "beside")
    )
    width, height = places[RIGHT].right + MARGIN, places[RIGHT].bottom + BOTTOM
    return (
        f'<svg class="state-diagram" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" role="img" style="max-width: 100%; height: auto">'
        "<title>The states of a client</title>"
        f"<style>{STYLE}</style>"
        '<defs><marker id="arrowhead" viewBox="0 0 10 10" refX="9.5" refY="5" markerWidth="9" markerHeight="9" '
        'orient="auto"><path class="solid" d="M0 1 L10 5 L0 9 z"/></marker></defs>' + "\n".join(parts) + "</svg>"
    )


if __name__ == "__main__":
    print(draw())
