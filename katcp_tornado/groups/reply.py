"""The answers of the members of a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, Union

from ..errors import QuorumNotReached, describe

if TYPE_CHECKING:
    from typing_extensions import Self

R = TypeVar("R")


class GroupReply(Mapping[str, Union[R, BaseException]], Generic[R]):
    """Answers of the members of a group: a mapping from its name to a result, or to an exception.

    It is true if as many members have given a result as the quorum wants.
    """

    __slots__ = ("_found", "_needed", "_what")

    def __init__(self, what: str, found: dict[str, Union[R, BaseException]], needed: int) -> None:
        self._what = what
        self._found = found
        self._needed = needed

    @property
    def replies(self) -> dict[str, R]:
        """The results, by the names of the members that have given one."""
        return {name: one for name, one in self._found.items() if not isinstance(one, BaseException)}

    @property
    def failures(self) -> dict[str, BaseException]:
        """The exceptions, by the names of the members that have given no result."""
        return {name: one for name, one in self._found.items() if isinstance(one, BaseException)}

    def check(self) -> Self:
        """Returns itself. Raises `.QuorumNotReached` if it is false."""
        if not self:
            failures = list(self.failures.items())
            shown = "; ".join(f"{name}: {describe(exc)}" for name, exc in failures[:5])
            more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
            raise QuorumNotReached(f"{self._what}: {len(self.replies)} of {self._needed} needed ({shown}{more})", self)
        return self

    def __getitem__(self, name: str) -> Union[R, BaseException]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __bool__(self) -> bool:
        return sum(not isinstance(one, BaseException) for one in self._found.values()) >= self._needed

    def __repr__(self) -> str:
        good = len(self.replies)
        return f"<{type(self).__name__} {self._what}: {good} of {len(self)}, {self._needed} needed>"
