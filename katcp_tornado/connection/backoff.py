"""Delay before the next attempt: randomised exponential backoff.

The whole delay is drawn at random ("full jitter"), with a floor: of a thousand clients that lose one
server, at most a few come back in the same 100 ms.
"""

from __future__ import annotations

import math
import numbers
import random as _random
from dataclasses import dataclass
from typing import Optional

from ..errors import quoted

#: More failures than this change nothing; and the number is one that a float can hold.
_ENOUGH = 10**300


@dataclass(frozen=True)
class Backoff:
    """The delays between attempts, in seconds. Immutable, and may be shared by clients.

    :arg first: ceiling of the delay after the first failure, and after the loss of a stable link.
    :arg maximum: no delay is longer than this.
    :arg factor: by how much the ceiling grows with each failure in a row; at least 1.
    :arg minimum: no delay is shorter than this (or than its ceiling, if that is shorter still).
    :arg stable: a link lost within this time of being connected counts as a failure. With 0 every
        link counts as stable.
    :arg max_failures: after so many failures in a row the client gives up and is CLOSED; None
        means that it never does.
    :arg random: a `random.Random`, for tests; by default the functions of the `random` module,
        which reseeds itself in forked processes.

    Raises `TypeError` or `ValueError`, naming the argument, for one that makes no sense.
    """

    first: float = 1.0
    maximum: float = 30.0
    factor: float = 2.0
    minimum: float = 0.1
    stable: float = 10.0
    max_failures: Optional[int] = None
    random: Optional[_random.Random] = None

    def __post_init__(self) -> None:
        for name, least, strict in (
            ("first", 0, True),
            ("maximum", 0, True),
            ("factor", 1, False),
            ("minimum", 0, False),
            ("stable", 0, False),
        ):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number, not {type(value).__name__}")
            try:
                number = float(value)
            except OverflowError:
                number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
            if not math.isfinite(number) or number < least or (strict and number == least):
                raise ValueError(
                    f"{name} must be finite and {'more than' if strict else 'at least'} {least}, not {quoted(value)}"
                )
            object.__setattr__(self, name, number)  # a float: factor ** n of an int would never overflow
        failures = self.max_failures
        if failures is not None:
            if not isinstance(failures, int) or isinstance(failures, bool):
                raise TypeError(f"max_failures must be an int or None, not {type(failures).__name__}")
            if failures < 1:
                raise ValueError(f"max_failures must be at least 1, not {quoted(failures)}")
        if self.random is not None and not callable(getattr(self.random, "uniform", None)):
            raise TypeError(f"random must be a random.Random or None, not {type(self.random).__name__}")

    def delay(self, n: int) -> float:
        """Draw a delay, in seconds, uniformly between ``min(minimum, c)`` and ``c``.

        ``c = min(maximum, first * factor ** n)``, where *n* is the number of failures in a row before
        the last one. Any *n* from 0 up is fine, however large.
        """
        if n < 0:
            raise ValueError(f"n must be at least 0, not {n}")
        try:
            ceiling = min(self.maximum, self.first * self.factor ** min(n, _ENOUGH))
        except OverflowError:
            ceiling = self.maximum
        uniform = _random.uniform if self.random is None else self.random.uniform
        return uniform(min(self.minimum, ceiling), ceiling)
