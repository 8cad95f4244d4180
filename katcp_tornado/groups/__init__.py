"""Groups of devices: one request to all, and a quorum."""

from .group import ClientGroup
from .reply import GroupReply

__all__ = ["ClientGroup", "GroupReply"]
