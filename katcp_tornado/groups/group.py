"""Groups of devices: one request to all, and a quorum."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union

from tornado.ioloop import IOLoop

from ..client import Client
from ..connection.options import seconds
from ..connection.pending import DEFAULT
from ..connection.requests import Reply
from ..device import Device
from ..device.names import Names
from ..errors import refuse_copy
from ..sensors.types import Reading
from .gathering import Closed, Connected, Gathering, Member, client_of
from .names import GroupEntries
from .reply import GroupReply

if TYPE_CHECKING:
    from typing_extensions import Self

Quorum = Union[int, float, None]


class GroupRequest:
    """A request of the members of a group: calling it sends it to all of them.

    :ivar name: the name, such as ``set-rate``.
    :ivar help: the text of the first member that has it; also ``__doc__``.
    """

    def __init__(self, group: ClientGroup, name: str, help: str) -> None:
        self._group = group
        self.name = name
        self.help = self.__doc__ = help

    def __call__(
        self, *args: Any, timeout: Optional[float] = DEFAULT, wait_connected: bool = False, quorum: Quorum = None
    ) -> asyncio.Future[GroupReply[Reply]]:
        return self._group.request(self.name, *args, timeout=timeout, wait_connected=wait_connected, quorum=quorum)

    def __repr__(self) -> str:
        return f"<request {self.name} of a group>"


class ClientGroup(Mapping[str, Member]):
    """Clients and devices that are asked together: a mapping from names to them, in the order in which they were added.

    :arg members: a mapping from names to `.Client` or `.Device` objects, all on one IOLoop.
    """

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members: dict[str, Member] = {}
        self._requests: GroupEntries[GroupRequest] = GroupEntries(self._members, partial(GroupRequest, self))
        if not isinstance(members, Mapping):
            raise TypeError(f"members must be a mapping, not {type(members).__name__}")
        for name, member in members.items():
            self.add(name, member)

    # Members

    def add(self, name: str, member: Member) -> None:
        """Add a member. Raises `ValueError` if there is one of this name."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a member must be a str, not {type(name).__name__}")
        if not isinstance(member, (Client, Device)):
            raise TypeError(f"a member must be a Client or a Device, not {type(member).__name__}")
        if name in self._members:
            raise ValueError(f"the group has a member {name!r} already")
        self._members[name] = member

    def remove(self, name: str) -> Member:
        """Remove a member, and return it; it is not closed. Raises `KeyError` if there is none of this name."""
        return self._members.pop(name)

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def req(self) -> Names[GroupRequest]:
        """The requests that any of the devices has, a mapping whose entries are attributes, too."""
        return Names(self._requests)

    __reduce_ex__ = refuse_copy

    def __repr__(self) -> str:
        connected = sum(client_of(member).is_connected for member in self._members.values())
        return f"<{type(self).__name__}: {connected} of {len(self)} connected>"

    # Asking

    def request(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        quorum: Quorum = None,
    ) -> asyncio.Future[GroupReply[Reply]]:
        """Send a request to every member: a Future of a `.GroupReply`, which raises no member's error.

        It waits for all that are members now; the *quorum* decides only whether the reply is true.

        :arg quorum: None for all members; an int for so many of them; a float in (0, 1] for that share, rounded up.

        Raises `TypeError` or `ValueError` for wrong arguments, as `.Client.request` does.
        """
        needed = self._needed(quorum)
        futures: dict[str, asyncio.Future[Any]] = {}
        try:
            for member_name, member in list(self._members.items()):
                futures[member_name] = client_of(member).request(
                    name, *args, timeout=timeout, wait_connected=wait_connected
                )
        except BaseException:
            for future in futures.values():
                future.cancel()
            raise
        return Gathering(self._loop(), f"?{name}", futures, needed, len(futures), 0.0)

    def wait(
        self,
        sensor: str,
        condition: Any,
        timeout: Optional[float] = None,
        quorum: Quorum = None,
        grace: float = 0.0,
    ) -> asyncio.Future[GroupReply[Reading]]:
        """A Future of a `.GroupReply` of the readings of a sensor that meet a condition.

        It waits for those that are members now, and is settled *grace* seconds after the quorum is reached, without
        the members that were not needed; or after *timeout* seconds, with a `.WaitTimeout` for each that is missing.

        :arg condition: as for `.SensorWatcher.wait`.

        Raises `TypeError` if a member is no `.Device`.
        """
        needed = self._needed(quorum)
        seconds("timeout", timeout, zero=True)
        delay = seconds("grace", grace, optional=False, zero=True) or 0.0
        devices: dict[str, Device] = {}
        for name, member in self._members.items():
            if not isinstance(member, Device):
                raise TypeError(f"member {name!r} is no Device")
            devices[name] = member
        futures: dict[str, asyncio.Future[Any]] = {}
        try:
            for name, device in devices.items():
                found = device.sensor.get(sensor)
                wanted = sensor if found is None else found.name
                futures[name] = device._sensors.wait(wanted, condition, timeout)
        except BaseException:
            for future in futures.values():
                future.cancel()
            raise
        return Gathering(self._loop(), f"sensor {sensor}", futures, needed, needed, delay)

    def wait_connected(self, timeout: Optional[float] = None, quorum: Quorum = None) -> asyncio.Future[list[str]]:
        """A Future of the names of the members that are connected, once they are as many as the quorum wants.

        Raises `.WaitTimeout` after *timeout* seconds, which names those that are missing.
        """
        return Connected(
            self._loop(), dict(self._members), self._needed(quorum), seconds("timeout", timeout, zero=True)
        )

    def _needed(self, quorum: Quorum) -> int:
        """The number of members that a quorum wants."""
        count = len(self._members)
        if quorum is None:
            return count
        if isinstance(quorum, bool) or not isinstance(quorum, (int, float)):
            raise TypeError(f"quorum must be an int, a float or None, not {type(quorum).__name__}")
        if isinstance(quorum, float):
            if not 0 < quorum <= 1:
                raise ValueError(f"quorum must be a share in (0, 1] or a number of members, not {quorum!r}")
            return math.ceil(quorum * count - 1e-9)
        if not 1 <= quorum <= count:
            raise ValueError(f"quorum must be between 1 and the number of members, {count}, not {quorum}")
        return quorum

    def _loop(self) -> asyncio.AbstractEventLoop:
        for member in self._members.values():
            return client_of(member)._link.loop
        return IOLoop.current().asyncio_loop  # type: ignore[attr-defined, no-any-return]

    # The end

    def close(self) -> None:
        """Close all members. May be called again."""
        for member in list(self._members.values()):  # what a callback does to the group is no matter
            member.close()

    def wait_closed(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when nothing of the members is left on the loop. It does not close them."""
        futures = {name: member.wait_closed(timeout) for name, member in self._members.items()}
        return Closed(self._loop(), "close", futures, len(futures), len(futures), 0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        await self.wait_closed()
