"""Clients for scripts, threads and interactive sessions: every call waits for its result."""

from .client import BlockingClient
from .device import BlockingDevice
from .group import BlockingGroup
from .informs import ExpectedInform
from .names import BlockingNames, BlockingRequest
from .sensors import BlockingSensor, BlockingSubscription, BlockingWatcher
from .wrapping import wrap

__all__ = [
    "BlockingClient",
    "BlockingDevice",
    "BlockingGroup",
    "BlockingNames",
    "BlockingRequest",
    "BlockingSensor",
    "BlockingSubscription",
    "BlockingWatcher",
    "ExpectedInform",
    "wrap",
]
