"""The blocking face of a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Union

from .. import Client, ClientGroup, Device, GroupReply, Reading, Reply
from ..connection.pending import DEFAULT
from .client import BlockingClient
from .device import BlockingDevice
from .face import Face
from .names import BlockingNames, BlockingRequest

if TYPE_CHECKING:
    from .runner import Runner


class BlockingGroup(Face, Mapping[str, Union[BlockingClient, BlockingDevice]]):
    """The blocking face of a `.ClientGroup`, with the same names; made by `wrap`. Its members are blocking, too.

    :ivar group: the `.ClientGroup` itself, for use on its loop.
    """

    def __init__(self, runner: Runner, group: ClientGroup) -> None:
        self._runner = runner
        self.group = group

    def __getitem__(self, name: str) -> Union[BlockingClient, BlockingDevice]:
        member = self.group[name]
        if isinstance(member, Device):
            return BlockingDevice._on(self._runner, member)
        return BlockingClient._on(self._runner, member)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.group))

    def __len__(self) -> int:
        return len(self.group)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.group!r}>"

    @property
    def req(self) -> BlockingNames[BlockingRequest]:
        """The requests that any of the devices has, a mapping whose entries are attributes, too."""
        __tracebackhide__ = True
        names = self._runner.at_any_time(lambda: self.group.req)
        return BlockingNames(self._runner, names, partial(BlockingRequest, self))

    def add(self, name: str, member: Union[Client, Device]) -> None:
        """See `.ClientGroup.add`."""
        __tracebackhide__ = True
        self._do(self.group.add, name, member)

    def remove(self, name: str) -> Union[Client, Device]:
        """See `.ClientGroup.remove`."""
        __tracebackhide__ = True
        member: Union[Client, Device] = self._runner.at_any_time(self.group.remove, name)
        return member

    def request(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        quorum: Union[int, float, None] = None,
    ) -> GroupReply[Reply]:
        """Send a request to every member, and wait for all; see `.ClientGroup.request`."""
        __tracebackhide__ = True
        options = {"timeout": timeout, "wait_connected": wait_connected, "quorum": quorum}
        reply: GroupReply[Reply] = self._runner.call(self.group.request, name, *args, **options)
        return reply

    def wait(
        self,
        sensor: str,
        condition: Any,
        timeout: Optional[float] = None,
        quorum: Union[int, float, None] = None,
        grace: float = 0.0,
    ) -> GroupReply[Reading]:
        """Wait until a sensor meets a condition at as many members as the quorum wants; see `.ClientGroup.wait`."""
        __tracebackhide__ = True
        reply: GroupReply[Reading] = self._runner.call(self.group.wait, sensor, condition, timeout, quorum, grace)
        return reply

    def wait_connected(self, timeout: Optional[float] = None, quorum: Union[int, float, None] = None) -> list[str]:
        """Wait until members are connected, and return their names; see `.ClientGroup.wait_connected`."""
        __tracebackhide__ = True
        names: list[str] = self._runner.call(self.group.wait_connected, timeout, quorum)
        return names

    def wait_closed(self, timeout: Optional[float] = None) -> None:
        """Wait until the members have ended; see `.ClientGroup.wait_closed`. It does not close them."""
        __tracebackhide__ = True
        self._wait_closed(self.group.wait_closed, timeout)
