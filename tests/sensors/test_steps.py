"""The next step for a sensor: every combination of what is wanted and what is so."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple, Optional

import pytest

from katcp_tornado.sensors.sampled_sensor import (
    BUSY,
    DOUBTFUL,
    FRESH,
    IDLE,
    NOTHING,
    QUEUED,
    RECHECKED,
    REPEATED,
    SILENT,
    SampledSensor,
)
from katcp_tornado.sensors.steps import Step, next_step
from katcp_tornado.sensors.strategies import NONE, Strategy

AUTO, EVENT = Strategy("auto"), Strategy("event")


class Device(NamedTuple):
    bulk: bool = True
    known: Optional[bool] = True

    def has(self, wire: bytes) -> Optional[bool]:
        return self.known


def wish(strategy: Strategy = AUTO, *, own_type: bool = True) -> Any:
    return SimpleNamespace(wanted=strategy, own_type=own_type, waiting=0, refused={})


def sensor(*subscribers: Any, wire: bytes = b"a", **facts: Any) -> SampledSensor:
    made = SampledSensor(wire.decode(), wire)
    made.subscribers = subscribers
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def expected(
    wanted: Optional[Strategy], typed: bool, accepted: Any, recheck: bool, heard: int, place: int, none: bool, has: Any
) -> Step:
    if place == BUSY:
        return Step.WAIT
    if wanted is not None and wanted != NONE:
        if not typed:
            return Step.LOOK_UP
        if accepted != wanted or recheck:
            return Step.SET
        return Step.READ if heard == NOTHING else Step.SETTLED
    rest = Step.SETTLED if wanted is not None else Step.DROP
    if accepted == NONE or (accepted is None and wanted is not None):
        return rest
    if not none:
        return Step.SET
    return {None: Step.LOOK_UP, True: Step.WAIT, False: rest}[has]


@pytest.mark.parametrize("wanted", [None, NONE, AUTO], ids=["nobody", "none", "auto"])
@pytest.mark.parametrize("accepted", [None, NONE, AUTO, EVENT], ids=["unknown", "none", "auto", "event"])
def test_every_combination(wanted: Optional[Strategy], accepted: Optional[Strategy]) -> None:
    for typed, recheck, heard, place, none, has, bulk in itertools.product(
        (True, False),
        (True, False),
        (NOTHING, SILENT, DOUBTFUL, RECHECKED, REPEATED, FRESH),
        (IDLE, QUEUED, BUSY),
        (True, False),
        (True, False, None),
        (True, False),
    ):
        one = sensor(
            *([] if wanted is None else [wish(wanted)]),
            decode=int if typed else None,
            accepted=accepted,
            recheck=recheck,
            heard=heard,
            place=place,
            blocked=(None,) if none else (),
        )
        facts = (wanted, typed, accepted, recheck, heard, place, none, has)
        assert next_step(one, Device(bulk, has)) is expected(*facts), facts


def test_the_newest_that_is_not_blocked_is_wanted() -> None:
    newest, older = wish(EVENT), wish(AUTO)
    one = sensor(newest, older, decode=int, accepted=AUTO, heard=FRESH)
    assert next_step(one, Device()) is Step.SET and one.wanted() == EVENT
    one.blocked = (newest,)
    assert next_step(one, Device()) is Step.SETTLED and one.wanted() == AUTO
    one.blocked = (newest, older)
    assert next_step(one, Device()) is Step.SET and one.wanted() == NONE


def test_who_names_a_type_does_not_wait_for_the_device_s_own() -> None:
    assert next_step(sensor(wish(own_type=False)), Device()) is Step.SET
    one = sensor(wish(own_type=False), untyped := wish())
    assert next_step(one, Device()) is Step.LOOK_UP
    one.blocked = (untyped,)
    assert next_step(one, Device()) is Step.SET


@pytest.mark.parametrize(("bulk", "step"), [(True, Step.REJECT), (False, Step.SET)])
def test_a_comma_stands_between_names_only_where_there_are_bulk_requests(bulk: bool, step: Step) -> None:
    assert next_step(sensor(wish(), wire=b"a,b", decode=int), Device(bulk)) is step


def test_replaced() -> None:
    subscription = wish()
    forgotten: list[SampledSensor] = []
    subscription.forget = forgotten.append
    one = sensor(subscription, decode=int, accepted=AUTO, heard=FRESH, last=(b"1", b"nominal", b"2"), alone=True)
    one.unsettled = ()
    one.replaced()
    assert next_step(one, Device()) is Step.LOOK_UP
    assert (one.accepted, one.last, one.alone, one.unsettled) == (None, None, False, (subscription,))  # type: ignore[comparison-overlap]
    assert subscription.waiting == 1 and forgotten == [one]
    one.replaced()
    assert subscription.waiting == 1, "marking twice is marking once"
