"""The network between a client and a device, which can be a bad one."""

from __future__ import annotations

import math
import numbers
import socket
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from tornado.ioloop import IOLoop
from tornado.netutil import add_accept_handler

from ..connection.options import check_address, seconds, size
from ..transport.lookup import address_text
from .links import Link, Pipe
from .port import Port

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Faults", "FaultProxy", "Flow"]


class Faults(NamedTuple):
    """Impairments of one direction; see `.Flow.impair`."""

    latency: float = 0.0
    bandwidth: float = math.inf
    slice: int = sys.maxsize
    pause: float = 0.0
    black_hole: bool = False
    limit: Optional[int] = None


class Flow:
    """One direction of a `.FaultProxy`, on all its links: `.FaultProxy.to_device` or `.FaultProxy.to_client`."""

    def __init__(self) -> None:
        #: What is wrong at present, a NamedTuple of the arguments of `impair`. Not to be set.
        self.faults = Faults()
        #: Bytes that have been handed on, ever.
        self.passed = 0
        #: Bytes that have been swallowed, ever.
        self.lost = 0
        self.pipes: list[Pipe] = []

    def impair(
        self,
        *,
        latency: float = 0.0,
        bandwidth: Optional[float] = None,
        slice: Optional[int] = None,
        pause: float = 0.0,
        black_hole: bool = False,
        limit: Optional[int] = None,
    ) -> None:
        """Make this direction a bad one, at once, and until the next call. What is not named is well again.

        :arg latency: seconds that everything is on the way, the end of the connection included.
        :arg bandwidth: bytes in a second, for each link; None is no limit.
        :arg slice: bytes handed on at a time, each slice in a turn of the loop of its own. None: as they come.
        :arg pause: seconds from one slice to the next.
        :arg black_hole: swallow what comes, and keep TCP up. What is sent meanwhile is lost for good; the end of a
            connection is only late, and a new link reaches the device only when it can send to it again.
        :arg limit: bytes; a link is reset as soon as so many have passed, counted from now, or from its beginning.

        Raises `TypeError` or `ValueError`, naming the argument, for one that makes no sense.
        """
        for name, number in (("latency", latency), ("pause", pause)):
            seconds(name, number, optional=False, zero=True)
        if bandwidth is not None and not isinstance(bandwidth, numbers.Real):
            raise TypeError(f"bandwidth must be a number or None, not {type(bandwidth).__name__}")
        if bandwidth is not None and not bandwidth > 0:
            raise ValueError(f"bandwidth must be more than 0 bytes in a second, not {bandwidth!r}")
        if slice is not None:
            size("slice", slice)
        if limit is not None and limit != 0:
            size("limit", limit)
        self.faults = Faults(
            latency=latency,
            bandwidth=math.inf if bandwidth is None else bandwidth,
            slice=sys.maxsize if slice is None else slice,
            pause=pause,
            black_hole=black_hole,
            limit=limit,
        )
        for pipe in list(self.pipes):
            pipe.impaired()

    def half_close(self) -> None:
        """End this direction of every link: an end of file (FIN) for who receives, while the other direction goes on.

        What is on the way, and what is still sent, is lost.
        """
        for pipe in list(self.pipes):
            pipe.finish()

    def __repr__(self) -> str:
        bad = (f"{name}={value!r}" for name, value in self.faults._asdict().items() if value != getattr(Faults(), name))
        return f"<Flow {self.passed} bytes, {self.lost} lost{''.join(f', {item}' for item in bad)}>"


class FaultProxy:
    """A TCP proxy on a port of this machine, on the current IOLoop, which makes the network a bad one.

    It stands between a client and a device, and knows nothing of KATCP: the device may be a `.FakeDevice` or a
    real one, and may speak TLS. At first it hands on what it gets. Its faults may be set at any time, and count at
    once, for bytes that are on the way too::

        with FakeDevice() as device, FaultProxy(device.host, device.port) as proxy:
            client = await Client.connect(proxy.host, proxy.port, watchdog=10)
            proxy.impair(latency=0.5, bandwidth=1000)       # a line of the last century
            proxy.to_client.impair(slice=1, pause=0.01)     # replies come byte by byte
            proxy.impair(black_hole=True)                   # the cable is pulled: nobody is told
            await client.wait_disconnected()
            proxy.restore()
            await client.wait_connected()

    Both ends are treated as a network does: the end of a connection is handed on, and so is a reset, after whatever was
    sent before it. If the device cannot be reached, the client's connection is accepted and then reset. At most 64 KiB
    are on the way in each direction of a link; the proxy does not read from one side what the other does not take.

    Nothing waits for the loop: `start` has the port open when it returns, and may be called before the loop runs; when
    `stop` returns there are no handlers, timers or connections left on the loop.

    :arg device_host: where the device is, a numeric address.
    :arg device_port: its port.
    :arg host: where the proxy listens, a numeric address of this machine.
    :arg port: 0 lets the system choose. The proxy keeps its port for good: see `stop`.
    """

    def __init__(self, device_host: str, device_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        device_port = check_address(device_host, device_port)
        try:
            found = socket.getaddrinfo(device_host, device_port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            raise ValueError(f"device_host must be a numeric address, not {device_host!r}") from None
        #: What the clients send, a `.Flow`.
        self.to_device = Flow()
        #: What the device sends, a `.Flow`.
        self.to_client = Flow()
        #: How many connections were ever accepted.
        self.accepted = 0
        self._family, self._target = found[0][0], found[0][4]
        self._port = Port(host, port)
        self._stop_listening: Optional[Callable[[], None]] = None
        self._links: list[Link] = []

    # Life

    def start(self) -> None:
        """Listen, on the current IOLoop; at first, or again on the same port. No-op if it does."""
        if self._stop_listening is not None:
            return
        #: The `.IOLoop` of the last `start`.
        self.io_loop = IOLoop.current()
        sock = self._port.listen()
        remove_handler = add_accept_handler(sock, self._accept)

        def stop_listening() -> None:
            remove_handler()
            sock.close()

        self._stop_listening = stop_listening

    def refuse(self) -> None:
        """Refuse new connections; links that there are go on. `start` ends it.

        The port stays taken (by a socket that does not listen), so that nobody else gets it, and no client connects to
        itself; `close` gives it up. No-op if it does not listen.
        """
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
            self._port.hold()

    def stop(self) -> None:
        """`refuse` new connections and `cut` those that there are. `start` brings the proxy back."""
        self.refuse()
        self.cut()

    def close(self) -> None:
        """`stop`, and give up the port."""
        self.stop()
        self._port.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """True if it listens."""
        return self._stop_listening is not None

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._port.host

    @property
    def port(self) -> int:
        """The port; 0 if the system shall choose it and `start` has not been called."""
        return self._port.number

    @property
    def address(self) -> str:
        """ "host:port"."""
        return address_text(self.host, self.port)

    @property
    def links(self) -> int:
        """Number of links: connections of a client, with theirs to the device."""
        return len(self._links)

    def __repr__(self) -> str:
        return f"<FaultProxy {self.address} to {address_text(*self._target[:2])}, {self.links} links>"

    # Faults

    def impair(self, **faults: Any) -> None:
        """Make both directions bad ones: `.Flow.impair` for each, with these arguments."""
        self.to_device.impair(**faults)
        self.to_client.impair(**faults)

    def restore(self) -> None:
        """Make the network a good one: nothing is impaired, and connections are accepted.

        What was on the way goes on at once. Links that were ended or forgotten do not come back.
        """
        self.impair()
        self.start()

    def cut(self) -> None:
        """End every link at once, as a process does that exits: an end of file (FIN) for both sides."""
        for link in list(self._links):
            link.close()

    def reset(self) -> None:
        """Reset every link at once: a reset (RST) for both sides."""
        for link in list(self._links):
            link.close(reset=True)

    def forget(self) -> None:
        """Swallow, from now on and for good, what comes over the links that there are. New links are good ones.

        This is what a NAT or a firewall does that has lost its tables: nobody is told.
        """
        for link in list(self._links):
            link.forget()

    def _accept(self, sock: socket.socket, address: Any) -> None:
        self.accepted += 1
        link = Link(self.io_loop, sock, self._family, self._target, self.to_device, self.to_client, self._links.remove)
        self._links.append(link)
        link.start()
