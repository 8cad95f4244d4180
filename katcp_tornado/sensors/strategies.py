"""Sampling strategies [guidelines, section 7.1]."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import quoted
from ..wire.values import decode, encode

#: Which parameters of a strategy are times: seconds, on the wire of a v4 device milliseconds [section 1.1].
_TIMES = {"period": (0,), "event-rate": (0, 1), "differential-rate": (1, 2)}


class Strategy(NamedTuple):
    """Sampling strategy: ``auto``, ``event``, ``period`` ... and the parameters, times in seconds."""

    name: str
    params: tuple[Any, ...] = ()

    @classmethod
    def make(cls, name: str, params: Iterable[Any]) -> Strategy:
        """One that can be sent; whether it makes sense is for the device to say.

        Raises `TypeError` or `ValueError`, naming the argument.
        """
        if not isinstance(name, str):
            raise TypeError(f"strategy must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("strategy must not be empty")
        if any(character.isspace() for character in name):
            raise ValueError(f"strategy must be one word, not {name[:100]!r}")
        if isinstance(params, (str, bytes)) or not isinstance(params, Iterable):
            raise TypeError(f"params must be a list or tuple, not {type(params).__name__}")
        strategy = cls(name, tuple(params))
        for major in (4, 5):
            strategy.arguments(major)
        return strategy

    def arguments(self, major: int) -> list[bytes]:
        """Arguments on the wire, for a device that speaks KATCP *major*."""
        arguments = [encode(self.name), *(encode(param, major) for param in self.params)]
        if major < 5:
            for index in _TIMES.get(self.name, ()):
                if index < len(self.params):
                    milliseconds = _seconds(self.params[index]) * 1000.0
                    arguments[index + 1] = encode(int(milliseconds) if milliseconds.is_integer() else milliseconds)
        return arguments


def _seconds(param: Any) -> float:
    """A time, however it is given. Raises `ValueError` if it is none."""
    if isinstance(param, numbers.Real):
        return float(param)
    try:
        return float(decode(float, encode(param)))
    except ValueError:
        raise ValueError(f"params must have a number of seconds in place of {quoted(param)}") from None


NONE = Strategy("none")
