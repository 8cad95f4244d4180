"""Callbacks for informs, called as they are annotated.

What a callback wants is read from its signature once, when it is registered:

- ``def cb(message)`` or ``def cb(message: Message)``: the `.Message` itself. So does one without a usable
  signature, or that takes anything (``*args``).
- ``def cb(timestamp: Timestamp, count: int, *readings: bytes)``: the arguments, decoded as annotated. One without
  an annotation is passed as bytes.
"""

from __future__ import annotations

import functools
import inspect
import typing
from types import SimpleNamespace
from typing import Any, Callable, NamedTuple, Optional

from ..errors import quoted, shorten
from ..wire.codec import RawMessage
from ..wire.message import Message
from ..wire.values import decoder

_EMPTY = inspect.Parameter.empty


class Misfit(ValueError):
    """The arguments of an inform are not what its callback is annotated for."""


class _Shape(NamedTuple):
    """Parameters of a typed callback."""

    types: list[Any]
    required: int
    rest: Any  # the type of *args; None if there is none


def adapt(callback: Callable[..., Any], major: int) -> Callable[[RawMessage], Any]:
    """A function that takes a raw message and calls *callback* as it wants to be called.

    :arg major: the major protocol version of the device.

    The function raises `Misfit` if the arguments do not fit. `adapt` raises `TypeError` for a callback that could
    never be called: because of a type that is not registered, or of a keyword argument without default.
    """
    shape = _shape(callback)
    if shape is None:
        return lambda raw: callback(Message.wrap(raw))
    return _compile(callback, shape, major)


def _shape(callback: Callable[..., Any]) -> Optional[_Shape]:
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):
        return None
    catch_all = [p for p in parameters if p.annotation is _EMPTY and p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if catch_all == parameters and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    takes = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    for parameter in takes:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is _EMPTY:
            raise TypeError(f"an inform callback gets no keyword arguments, but {parameter.name!r} is required")
    takes = [p for p in takes if p.kind is not p.KEYWORD_ONLY]
    if len(takes) == 1 and takes[0].annotation in (_EMPTY, Message, "Message"):
        return None
    hints = _hints(callback, takes)
    positional = [p for p in takes if p.kind is not p.VAR_POSITIONAL]
    types = [hints.get(p.name, bytes) for p in positional]
    rest = next((hints.get(p.name, bytes) for p in takes if p.kind is p.VAR_POSITIONAL), None)
    if len(takes) == 1 and hints.get(takes[0].name) is Message:
        return None
    return _Shape(types, sum(p.default is _EMPTY for p in positional), rest)


def _hints(callback: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """The annotations, those that are text (``from __future__ import annotations``) evaluated."""
    hints = {p.name: p.annotation for p in parameters if p.annotation is not _EMPTY}
    if any(isinstance(hint, str) for hint in hints.values()):
        function: Any = callback
        while isinstance(function, functools.partial):
            function = function.func
        if isinstance(function, type):
            function = function.__init__  # type: ignore[misc]
        elif not inspect.isroutine(function):
            function = type(function).__call__
        names = getattr(inspect.unwrap(function), "__globals__", {})
        try:  # only those of the parameters: the others may not exist at run time
            hints = typing.get_type_hints(SimpleNamespace(__annotations__=hints), names)
        except Exception as exc:
            raise TypeError(f"the annotations of {quoted(callback)} cannot be evaluated: {exc}") from exc
    return {name: bytes if hint is Any else hint for name, hint in hints.items()}


def _decoders(shape: _Shape, major: int) -> list[Optional[Callable[[bytes], Any]]]:
    """A decoder for each parameter, None for bytes, which need none; that of the rest is the last."""
    types = [*shape.types, bytes if shape.rest is None else shape.rest]
    return [None if type_ is bytes else decoder(type_, major) for type_ in types]


def _compile(callback: Callable[..., Any], shape: _Shape, major: int) -> Callable[[RawMessage], Any]:
    *decoders, rest = _decoders(shape, major)
    required, most = shape.required, len(decoders)
    unlimited = shape.rest is not None
    # With their places, so that bytes cost nothing; the callback gets a list made for it alone.
    work = [(index, decode) for index, decode in enumerate(decoders) if decode is not None]

    def call(raw: RawMessage) -> Any:
        values: list[Any] = raw.arguments.copy()
        count = len(values)
        if count < required or (count > most and not unlimited):
            raise Misfit(f"{count} arguments, but the callback takes {_counts(required, most, unlimited)}")
        try:
            for index, decode in work:
                if index >= count:
                    break
                values[index] = decode(values[index])
            if rest is not None:
                values[most:] = map(rest, values[most:])
        except Exception as exc:  # a registered type may raise anything
            raise Misfit(shorten(str(exc))) from exc
        return callback(*values)

    return call


def _counts(required: int, most: int, unlimited: bool) -> str:
    if unlimited:
        return f"at least {required}"
    return str(most) if required == most else f"{required} to {most}"
