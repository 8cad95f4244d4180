"""``katcp-tornado export``: the metrics of devices, for Prometheus.

``/metrics`` gives those of the devices that were named on the command line. ``/probe?target=HOST:PORT`` gives those of
any one device that is allowed, in the manner of the blackbox exporter, so that Prometheus can spread many devices over
many exporters. Its client is kept for the next probe, and closed when there was none for a while.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from prometheus_client import CollectorRegistry, Gauge
from tornado import web
from tornado.ioloop import PeriodicCallback

from .. import Client, KatcpError, SensorWatcher
from ..metrics import ClientCollector, MetricsHandler, SensorCollector, hinted
from .serving import serve
from .targets import HostPort, find
from .targets import Target as CommandTarget
from .terminal import ExitCode

#: Seconds that a probe waits for its device where Prometheus does not say, and what it keeps in hand for the way back.
TIMEOUT, MARGIN = 9.5, 0.5
#: Most devices that are probed at a time.
MOST_TARGETS = 2000


class Mirrored(NamedTuple):
    """A client, and the mirror of its device's sensors."""

    client: Client
    watcher: SensorWatcher

    @classmethod
    def of(cls, client: Client) -> Mirrored:
        watcher = SensorWatcher(client)
        client.add_sensor_watcher(watcher)
        return cls(client, watcher)


def registry_of(devices: Mapping[str, Mirrored], describe: Any = hinted) -> CollectorRegistry:
    """The metrics of some devices, by name."""
    registry = CollectorRegistry()
    registry.register(ClientCollector({name: device.client for name, device in devices.items()}))
    registry.register(SensorCollector({name: device.watcher for name, device in devices.items()}, describe))
    return registry


class Target:
    """A device that is probed, from the first probe on."""

    def __init__(self, name: str, client: Client) -> None:
        self.device = Mirrored.of(client)
        self.registry = registry_of({name: self.device})
        self.success = Gauge("probe_success", "Whether the device was connected in time.", registry=self.registry)
        self.duration = Gauge("probe_duration_seconds", "How long the probe waited.", registry=self.registry)
        self.used = time.monotonic()
        self._waited: Optional[int] = None  # the connection on which the sensors were waited for

    async def wait(self, timeout: float) -> None:
        """Wait until the device is connected and, once on each connection, until its sensors are known."""
        start = self.used = time.monotonic()
        client, watcher = self.device
        try:
            await client.wait_connected(timeout)
            if self._waited != client.stats.generation:
                await watcher.synced(max(0.0, timeout - (time.monotonic() - start)))
        except KatcpError:
            pass  # what is wrong stands in the metrics
        if client.is_connected:
            self._waited = client.stats.generation
        self.success.set(client.is_connected)
        self.duration.set(time.monotonic() - start)


class Targets:
    """The devices that are probed; a client of each is made with the first probe, and kept.

    :arg connect: makes a client of a target, or raises `ValueError`.
    :arg allowed: tells whether a target may be probed.
    :arg idle: seconds without a probe after which a client is closed.
    """

    def __init__(self, connect: Callable[[str], Client], allowed: Callable[[str], bool], idle: float) -> None:
        self._connect = connect
        self._allowed = allowed
        self._idle = idle
        self._targets: dict[str, Target] = {}
        self._tidy = PeriodicCallback(self.tidy, max(1.0, idle / 10) * 1000)
        self._tidy.start()

    def get(self, name: str) -> Target:
        """The target of this name. Raises `tornado.web.HTTPError`: 400, 403 or 503."""
        if not self._allowed(name):
            raise web.HTTPError(403, "target %r is not allowed", name, reason="target not allowed; see --allow")
        target = self._targets.get(name)
        if target is None:
            if len(self._targets) >= MOST_TARGETS:
                raise web.HTTPError(503, reason=f"more than {MOST_TARGETS} targets")
            try:
                client = self._connect(name)
            except (ValueError, TypeError) as exc:
                raise web.HTTPError(400, "target %r: %s", name, exc, reason="not HOST[:PORT]") from None
            target = self._targets[name] = Target(name, client)
        return target

    def tidy(self) -> None:
        """Close the clients of which nobody has wanted to know for long."""
        now = time.monotonic()
        for name in [name for name, target in self._targets.items() if now - target.used > self._idle]:
            self._targets.pop(name).device.client.close()

    def close(self) -> None:
        """Close all clients."""
        self._tidy.stop()
        for target in self._targets.values():
            target.device.client.close()
        self._targets.clear()


class ProbeHandler(MetricsHandler):
    """Answers ``/probe?target=``. A device that is away is an answer, too."""

    def initialize(self, targets: Targets) -> None:  # type: ignore[override]
        """Keep the targets; Tornado calls this."""
        self.targets = targets

    async def get(self) -> None:
        """Answer a probe within Prometheus' own timeout."""
        target = self.targets.get(self.get_query_argument("target"))
        try:
            timeout = float(self.request.headers["X-Prometheus-Scrape-Timeout-Seconds"]) - MARGIN
        except (KeyError, ValueError):
            timeout = TIMEOUT
        await target.wait(min(max(0.1, timeout), 3600.0))  # 0.1 for nan, too
        self.registry = target.registry
        await super().get()


class IndexHandler(web.RequestHandler):
    """A page that leads to the others."""

    def get(self) -> None:
        """Answer with the links."""
        self.write(
            "<!doctype html><title>katcp-tornado export</title><h1>katcp-tornado export</h1>"
            '<p><a href="metrics">metrics</a> of the devices of the command line; '
            "<code>probe?target=HOST:PORT</code> of any one that is allowed."
        )


def allow(patterns: Sequence[str], listed: Sequence[str]) -> Callable[[str], bool]:
    """True if a target may be probed: one that is listed or, if there are patterns, one that fits one as a whole."""
    compiled = [re.compile(pattern) for pattern in patterns]
    if compiled:
        return lambda target: any(pattern.fullmatch(target) for pattern in compiled)
    return frozenset(listed).__contains__


def application(devices: Mapping[str, Mirrored], targets: Targets) -> web.Application:
    """The exporter, to be served."""
    return web.Application(
        [
            ("/", IndexHandler),
            ("/metrics", MetricsHandler, {"registry": registry_of(devices)}),
            ("/probe", ProbeHandler, {"targets": targets}),
        ],
        log_function=lambda handler: None,  # a line for each scrape helps nobody
    )


async def export(
    targets: Mapping[str, CommandTarget],
    options: Mapping[str, Any],
    patterns: Sequence[str],
    idle: float,
    listen: HostPort,
) -> ExitCode:
    """Serve the metrics until the end."""
    devices = {name: Mirrored.of(target.client()) for name, target in targets.items()}
    listed = [*targets, *(str(target.address) for target in targets.values())]

    def connect(name: str) -> Client:
        address = find(name)
        return Client(address.host, address.port, **options)

    probed = Targets(connect, allow(patterns, listed), idle)
    try:
        return await serve(application(devices, probed), listen)
    finally:
        probed.close()
        for device in devices.values():
            device.client.close()
