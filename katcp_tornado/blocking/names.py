"""The blocking faces of the requests and sensors of a device, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from ..device.names import Names
    from .face import Face
    from .runner import Runner

T = TypeVar("T")


class BlockingNames(Mapping[str, T]):
    """The requests or sensors of a `BlockingDevice`: a mapping whose entries are attributes, too."""

    __slots__ = ("_BlockingNames__made", "_BlockingNames__names", "_BlockingNames__runner")
    __runner: Runner
    __names: Names[Any]
    __made: Callable[[Any], T]

    def __init__(self, runner: Runner, names: Names[Any], made: Callable[[Any], T]) -> None:
        object.__setattr__(self, "_BlockingNames__runner", runner)
        object.__setattr__(self, "_BlockingNames__names", names)
        object.__setattr__(self, "_BlockingNames__made", made)

    def __getitem__(self, name: str) -> T:
        __tracebackhide__ = True
        return self.__made(self.__runner.at_any_time(self.__names.__getitem__, name))

    def __getattr__(self, name: str) -> T:
        __tracebackhide__ = True
        if name.startswith("_BlockingNames__"):  # of a copy that is being made
            raise AttributeError(name)
        return self.__made(self.__runner.at_any_time(getattr, self.__names, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__names, name, value)  # an AttributeError

    def __delattr__(self, name: str) -> None:
        delattr(self.__names, name)  # an AttributeError

    def __iter__(self) -> Iterator[str]:
        return iter(self._ipython_key_completions_())

    def __len__(self) -> int:
        return len(self._ipython_key_completions_())

    def __dir__(self) -> list[str]:
        names: list[str] = self.__runner.at_any_time(dir, self.__names)
        return names

    def _ipython_key_completions_(self) -> list[str]:
        names: list[str] = self.__runner.at_any_time(list, self.__names)
        return names

    def __repr__(self) -> str:
        shown: str = self.__runner.at_any_time(repr, self.__names)
        return shown


class BlockingRequest:
    """A request of a `BlockingDevice` or of a wrapped group: calling it sends it, and waits for the reply.

    :ivar name: the name, such as ``set-rate``.
    :ivar help: the device's own text; also ``__doc__``.
    """

    def __init__(self, face: Face, request: Any) -> None:
        self._face = face
        self._request = request
        self.name: str = request.name
        self.help: str = request.help
        self.__doc__ = self.help

    def __call__(self, *args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return self._face._ask(self._request, *args, **options)

    def __repr__(self) -> str:
        return repr(self._request)
