"""Bounds of the delays between attempts."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import random
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from katcp_tornado.connection.backoff import Backoff

HUGE = pytest.param(10**400, id="huge")
POSITIVE = st.floats(1e-6, 1e6)


class Ends(random.Random):
    """Draws the ends of the interval, in place of something between them."""

    def uniform(self, a: float, b: float) -> float:
        self.drawn = (a, b)
        return a


def bounds(n: int, **options: float) -> tuple[float, float]:
    rng = Ends()
    Backoff(random=rng, **options).delay(n)  # type: ignore[arg-type]
    return rng.drawn


def test_defaults() -> None:
    backoff = Backoff()
    assert (backoff.first, backoff.maximum, backoff.factor, backoff.minimum) == (1.0, 30.0, 2.0, 0.1)
    assert (backoff.stable, backoff.max_failures, backoff.random) == (10.0, None, None)


@pytest.mark.parametrize(
    ("n", "ceiling"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 30.0), (1023, 30.0), (1024, 30.0)]
)
def test_the_ceiling_grows_up_to_the_maximum(n: int, ceiling: float) -> None:
    assert bounds(n) == (0.1, ceiling)


@given(st.integers(0, 10**6), POSITIVE, POSITIVE, st.floats(1.0, 1e3), st.floats(0.0, 1e6), st.integers(0, 2**32))
def test_bounds(n: int, first: float, maximum: float, factor: float, minimum: float, seed: int) -> None:
    backoff = Backoff(first, maximum, factor, minimum, random=random.Random(seed))
    grown = n * math.log(factor) + math.log(first)
    # Both sides of the formula, with a margin for the logarithms.
    if grown > math.log(maximum) + 1e-6:
        ceiling = maximum
    elif grown < math.log(maximum) - 1e-6:
        ceiling = math.exp(grown)
    else:
        ceiling = maximum
    margin = 1 + 1e-6
    for _ in range(5):
        assert min(minimum, ceiling) / margin <= backoff.delay(n) <= min(maximum, ceiling * margin) * (1 + 1e-15)


@given(st.integers(0, 10**400), st.floats(1.0, 1e300))
@example(10**6, 2.0)
@example(10**400, 2.0)
@example(10**400, 1.0)
@example(1024, 2.0)
@example(2, 1e300)
def test_no_overflow(n: int, factor: float) -> None:
    low, high = bounds(n, factor=factor)
    assert low <= high <= 30.0
    assert high >= 1.0


@pytest.mark.parametrize("n", [0, 1, 10**6, HUGE])
def test_factor_one_is_a_constant_ceiling(n: int) -> None:
    assert bounds(n, factor=1.0) == (0.1, 1.0)


def test_integers_do_not_grow_without_end() -> None:
    assert bounds(10**6, first=1, factor=2, maximum=30) == (0.1, 30.0)


def test_a_small_ceiling_is_below_the_minimum() -> None:
    assert bounds(0, first=0.01) == (0.01, 0.01)


def test_the_seed_decides() -> None:
    def draw(seed: int) -> list[float]:
        backoff = Backoff(random=random.Random(seed))
        return [backoff.delay(n) for n in range(10)]

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) == 10


def test_the_default_draws_from_the_module() -> None:
    # ... which is reseeded in forked processes; a Random of our own would be copied.
    state = random.getstate()
    try:
        random.seed(5)
        mine = Backoff().delay(3)
        random.seed(5)
        assert mine == random.uniform(0.1, 8.0)
    finally:
        random.setstate(state)


def test_it_is_immutable() -> None:
    backoff = Backoff()
    with pytest.raises(dataclasses.FrozenInstanceError):
        backoff.first = 2.0  # type: ignore[misc]
    assert backoff == Backoff() == copy.copy(backoff) == pickle.loads(pickle.dumps(backoff))
    assert hash(backoff) == hash(Backoff())
    assert backoff != Backoff(first=2)


def test_delay_keeps_no_count() -> None:
    backoff = Backoff(random=Ends())
    for _ in range(100):
        backoff.delay(0)
    assert bounds(0) == (0.1, 1.0)
    assert backoff == dataclasses.replace(backoff)


@pytest.mark.parametrize("name", ["first", "maximum", "factor", "minimum", "stable"])
@pytest.mark.parametrize("value", [-1, -0.001, math.inf, -math.inf, math.nan, HUGE])
def test_errors_name_the_argument(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        Backoff(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["first", "maximum", "factor", "minimum", "stable"])
@pytest.mark.parametrize("value", ["1", None, True, b"1", 1j, [1]])
def test_numbers_are_wanted(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} "):
        Backoff(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "least"), [("first", 0), ("maximum", 0), ("factor", 0.999)])
def test_zero_makes_no_sense_everywhere(name: str, least: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        Backoff(**{name: least})  # type: ignore[arg-type]


def test_zeros_that_make_sense() -> None:
    backoff = Backoff(minimum=0, stable=0)
    assert backoff.minimum == backoff.stable == 0.0


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_max_failures(value: object, error: type[Exception]) -> None:
    assert Backoff(max_failures=1).max_failures == 1
    with pytest.raises(error, match="^max_failures "):
        Backoff(max_failures=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5, "seed", object()])
def test_random_is_a_random(value: object) -> None:
    with pytest.raises(TypeError, match="^random "):
        Backoff(random=value)  # type: ignore[arg-type]


def test_any_real_number_will_do() -> None:
    backoff = Backoff(first=Fraction(1, 2))  # type: ignore[arg-type]
    assert backoff.first == 0.5 and isinstance(backoff.first, float)


@pytest.mark.parametrize("n", [-1, pytest.param(-(10**400), id="huge")])
def test_no_negative_counts(n: int) -> None:
    with pytest.raises(ValueError, match="^n must be at least 0"):
        Backoff().delay(n)
