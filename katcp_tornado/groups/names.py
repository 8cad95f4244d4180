"""Requests of many devices, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from ..device import Device
from ..device.names import Entries

T = TypeVar("T")


class GroupEntries(Entries[T]):
    """The requests that any of some devices has, looked up at the devices whenever they are asked for.

    :arg members: the devices, and what else there is, by name.
    :arg made: makes an entry of a name and the text of the first device that has it.
    """

    def __init__(self, members: Mapping[str, Any], made: Callable[[str, str], T]) -> None:
        super().__init__("request", lambda: None)
        self._members = members
        self._made = made

    def _devices(self) -> list[Entries[Any]]:
        return [member._requests.entries for member in self._members.values() if isinstance(member, Device)]

    def get(self, name: object) -> Optional[T]:
        for device in self._devices():
            found = device.get(name)
            if found is not None:
                return self._made(found.name, found.help)
        return None

    def names(self) -> list[str]:
        return sorted({name for device in self._devices() for name in device.names()})

    def named(self, attribute: str) -> list[str]:
        return list(dict.fromkeys(name for device in self._devices() for name in device.named(attribute)))

    def attributes(self) -> list[str]:
        return list(dict.fromkeys(name for device in self._devices() for name in device.attributes()))
