"""Blocking faces of what lives on the application's own loop."""

from __future__ import annotations

from typing import Union, overload

from .. import Client, ClientGroup, Device
from .borrowed_loop import BorrowedLoop
from .client import BlockingClient
from .device import BlockingDevice
from .group import BlockingGroup


@overload
def wrap(wrapped: Client) -> BlockingClient: ...
@overload
def wrap(wrapped: Device) -> BlockingDevice: ...
@overload
def wrap(wrapped: ClientGroup) -> BlockingGroup: ...


def wrap(wrapped: Union[Client, Device, ClientGroup]) -> Union[BlockingClient, BlockingDevice, BlockingGroup]:
    """The blocking face of a `.Client`, `.Device` or `.ClientGroup` on the application's own loop.

    It is for use from other threads. Closing it ends its calls, and leaves the loop, its thread and what it wraps
    alone. On the loop's own thread, where a wait would be for ever, its calls raise `RuntimeError`.

    A group must have a member, or be wrapped on its loop.
    """
    if isinstance(wrapped, Client):
        return BlockingClient._on(BorrowedLoop(wrapped.io_loop.asyncio_loop), wrapped)  # type: ignore[attr-defined]
    if isinstance(wrapped, Device):
        io_loop = wrapped.client.io_loop
        return BlockingDevice._on(BorrowedLoop(io_loop.asyncio_loop), wrapped)  # type: ignore[attr-defined]
    if isinstance(wrapped, ClientGroup):
        return BlockingGroup(BorrowedLoop(wrapped._loop()), wrapped)
    raise TypeError(f"a Client, a Device or a ClientGroup can be wrapped, not a {type(wrapped).__name__}")
