"""Metrics for Prometheus: of clients, of the sensors that they mirror, and a handler that serves them.

Needs the extra ``metrics`` (prometheus-client)::

    registry = CollectorRegistry()
    registry.register(ClientCollector(clients))      # name -> Client
    registry.register(SensorCollector(watchers))     # name -> SensorWatcher
    app = tornado.web.Application([("/metrics", MetricsHandler, dict(registry=registry))])

Nothing is counted for this that the client does not count anyway: a collector reads when it is asked. A collector may
be asked in any thread. In another one than the loop's, it copies what it needs on the loop, one device a turn, and does
the rest in its own thread; so a scrape never holds up the loop.
"""

from __future__ import annotations

from .clients import ClientCollector
from .described import Metric, hinted
from .handler import MetricsHandler
from .sensors import SensorCollector

__all__ = ["ClientCollector", "Metric", "MetricsHandler", "SensorCollector", "hinted"]
