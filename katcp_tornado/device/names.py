"""Mappings whose entries are attributes, too: names of KATCP as names of Python."""

from __future__ import annotations

import bisect
import difflib
import keyword
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, Generic, Optional, TypeVar

from ..errors import describe, quoted, refuse_copy

T = TypeVar("T")

#: Of so many names before and after it in order, those that are like an unknown one are named in the error.
NEAR = 200


class Entries(Generic[T]):
    """Entries of a `Names`: by their exact names, and by the attributes that these make.

    :arg kind: what an entry is called, in errors.
    :arg unknown: returns None once the entries are known; until then why they are not, an exception or "".
    """

    def __init__(self, kind: str, unknown: Callable[[], Any]) -> None:
        self.kind = kind
        self._unknown = unknown
        self._by_name: dict[str, T] = {}
        self._sorted: Optional[list[str]] = None
        self._attributes: dict[str, list[str]] = {}

    def update(self, added: Mapping[str, T], removed: Iterable[str] = ()) -> None:
        """Add entries, and remove those of these names."""
        for name in removed:
            if self._by_name.pop(name, None) is not None:
                spelled = attribute(name)
                self._attributes[spelled].remove(name)
                if not self._attributes[spelled]:
                    del self._attributes[spelled]
        for name in added:
            if name not in self._by_name:
                self._attributes.setdefault(attribute(name), []).append(name)
        self._by_name.update(added)
        self._sorted = None

    def get(self, name: object) -> Optional[T]:
        """The entry of this exact name; None if there is none."""
        return self._by_name.get(name)  # type: ignore[call-overload, no-any-return]

    def names(self) -> list[str]:
        """All names, sorted."""
        if self._sorted is None:
            self._sorted = sorted(self._by_name)
        return self._sorted

    def named(self, attribute: str) -> list[str]:
        """The names that make this attribute: none, one, or several that clash."""
        return self._attributes.get(attribute, [])

    def attributes(self) -> list[str]:
        """The attributes, those that several names make included."""
        return list(self._attributes)

    def missing(self, error: type[Exception], name: str) -> Exception:
        """The error of a name that is not known, with similar ones."""
        cause = self._unknown()
        if cause is not None:
            why = f" ({describe(cause)})" if isinstance(cause, BaseException) else ""
            made = error(f"no {self.kind} {quoted(name)}: what the device has is not known yet{why}")
            made.__cause__ = cause or None
            return made
        similar: list[str] = []
        if len(name) < 100 and not name.startswith("_"):  # Python and IPython ask for many that do
            names = self.names()  # among many, one that begins otherwise is not looked for
            place = bisect.bisect(names, name)
            spelled = {attribute(one): one for one in names[max(0, place - NEAR) : place + NEAR]}
            similar = [spelled[found] for found in difflib.get_close_matches(attribute(name), spelled, n=3)]
        hint = f"; there is {', '.join(similar)}" if similar else ""
        return error(f"the device has no {self.kind} {quoted(name)}{hint}")


class Names(Mapping[str, T]):
    """Requests or sensors of a device, by name.

    A mapping from exact names, in their order; each is an attribute, too. In an attribute, all that no identifier can
    have is ``_``; a keyword, and a name that the mapping itself has, gets a trailing ``_``, a leading digit a leading
    one. By item, an attribute's spelling does, too, if it is unique.
    """

    __slots__ = ("_Names__entries",)
    __entries: Entries[T]

    def __init__(self, entries: Entries[T]) -> None:
        object.__setattr__(self, "_Names__entries", entries)

    def __getitem__(self, name: str) -> T:
        entries = self.__entries
        found: Optional[T] = self.get(name)
        if found is not None:
            return found
        names = entries.named(name) if isinstance(name, str) else []
        if names:
            raise _UnknownName(_ambiguous(entries.kind, name, names))
        raise entries.missing(_UnknownName, str(name))

    def get(self, name: object, default: Any = None) -> Any:
        """The entry of this name, or of this attribute if that is unique; otherwise *default*."""
        entries = self.__entries
        found = entries.get(name)
        if found is None and isinstance(name, str):
            names = entries.named(name)
            found = entries.get(names[0]) if len(names) == 1 else None
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def __getattr__(self, name: str) -> T:
        if name == "_Names__entries":  # of a copy that is being made
            raise AttributeError(name)
        entries = self.__entries
        names = entries.named(name)
        found = entries.get(names[0]) if len(names) == 1 else None
        if found is not None:
            return found
        if names:
            raise AttributeError(_ambiguous(entries.kind, name, names))
        raise entries.missing(AttributeError, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be assigned to: it belongs to the device")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: it belongs to the device")

    def __iter__(self) -> Iterator[str]:
        return iter(self.__entries.names())

    def __len__(self) -> int:
        return len(self.__entries.names())

    def __dir__(self) -> list[str]:
        entries = self.__entries
        return [*_RESERVED, *(name for name in entries.attributes() if len(entries.named(name)) == 1)]

    def _ipython_key_completions_(self) -> list[str]:
        return self.__entries.names()

    __reduce_ex__ = refuse_copy

    def __repr__(self) -> str:
        names = self.__entries.names()
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return f"<{len(names)} {self.__entries.kind}s{': ' if names else ''}{shown}>"


class _UnknownName(KeyError):
    """A KeyError whose text is shown as it is."""

    __str__ = Exception.__str__


_UnknownName.__name__ = "KeyError"
#: ASCII that no identifier can have.
_ASCII = {code: "_" for code in range(128) if not f"a{chr(code)}".isidentifier()}
_RESERVED = frozenset(dir(Names))


def attribute(name: str) -> str:
    """The attribute that a name makes."""
    spelled = (name if name.isascii() else unicodedata.normalize("NFKC", name)).translate(_ASCII)  # as Python does
    if not spelled.isidentifier():  # it begins with a digit, is empty, or has other characters that cannot be
        spelled = "".join(c if f"a{c}".isidentifier() else "_" for c in spelled)
        if not spelled.isidentifier():
            spelled = f"_{spelled}"
    return f"{spelled}_" if keyword.iskeyword(spelled) or spelled in _RESERVED else spelled


def _ambiguous(kind: str, name: str, names: list[str]) -> str:
    several = ", ".join(sorted(names)[:5])
    return f"{quoted(name)} is the attribute of several {kind}s: {several}; ask by item for one of them"
