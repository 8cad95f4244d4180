"""Kit for tests of KATCP clients: a device that misbehaves on demand, a bad network, and a clock that jumps.

`FakeDevice` is a KATCP server on a real port of this machine, which can be scripted. `FaultProxy` stands between a
client and a device, and is as bad as a network can be. `VirtualTimeLoop` is an IOLoop on which timeouts take no time.
Nothing in here needs the rest of the library's client, or pytest, but for ``katcp_tornado.testing.plugin``: fixtures
of these for pytest.
"""

from .behaviours import (
    Answer,
    Banner,
    Behaviour,
    Deaf,
    Delay,
    Disconnect,
    Drip,
    Drop,
    EndlessLine,
    Partial,
    Raw,
    Reset,
    Silent,
    Stall,
    Version,
)
from .connection import Connection
from .device import FakeDevice
from .handlers import Fail, Invalid, RequestContext
from .loop import VirtualTimeLoop
from .proxy import FaultProxy, Faults, Flow
from .sensors import FakeReading, FakeSensor, Sampler

__all__ = [
    "FakeDevice",
    "FaultProxy",
    "VirtualTimeLoop",
    # how it behaves
    "Behaviour",
    "Answer",
    "Banner",
    "Deaf",
    "Delay",
    "Disconnect",
    "Drip",
    "Drop",
    "EndlessLine",
    "Partial",
    "Raw",
    "Reset",
    "Silent",
    "Stall",
    "Version",
    # what it is made of
    "Connection",
    "Fail",
    "FakeReading",
    "FakeSensor",
    "Faults",
    "Flow",
    "Invalid",
    "RequestContext",
    "Sampler",
]
