"""The table of states."""

from __future__ import annotations

import pytest

from katcp_tornado.connection.states import INITIAL, TRANSITIONS, State


def test_the_table_is_complete() -> None:
    assert set(TRANSITIONS) == set(State)
    for old, row in TRANSITIONS.items():
        assert set(row) <= set(State)
        assert old not in row, "a state does not follow itself"
        assert all(why.strip() for why in row.values()), "each arrow of the diagram has its words"


def test_closed_is_the_end() -> None:
    assert [state for state in State if not TRANSITIONS[state]] == [State.CLOSED]


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_close_is_legal_everywhere(state: State) -> None:
    assert State.CLOSED in TRANSITIONS[state]


def test_every_state_is_reached() -> None:
    reached, todo = {INITIAL}, [INITIAL]
    while todo:
        new = set(TRANSITIONS[todo.pop()]) - reached
        reached |= new
        todo += new
    assert reached == set(State)


def test_the_life_of_a_client() -> None:
    assert INITIAL is State.CONNECTING
    # A link is up only after a handshake, and every reconnection is like the first connect.
    assert [state for state in State if State.CONNECTED in TRANSITIONS[state]] == [State.NEGOTIATING]
    assert [state for state in State if State.NEGOTIATING in TRANSITIONS[state]] == [State.CONNECTING]
    assert [state for state in State if State.CONNECTING in TRANSITIONS[state]] == [State.SLEEPING]
    for state in (State.CONNECTING, State.NEGOTIATING, State.CONNECTED):
        assert State.SLEEPING in TRANSITIONS[state]
