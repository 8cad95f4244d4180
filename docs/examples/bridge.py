"""The sensors of a device as metrics for Prometheus: ``bridge.py HOST PORT``."""

import asyncio
import sys

from prometheus_client import CollectorRegistry
from tornado.web import Application

from katcp_tornado import Client, SensorWatcher
from katcp_tornado.metrics import ClientCollector, MetricsHandler, SensorCollector, hinted


def start(host, port, listen=9100):
    """Returns the client and the web server."""
    client = Client(host, port)
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    registry = CollectorRegistry()
    registry.register(ClientCollector({host: client}))
    registry.register(SensorCollector({host: watcher}, hinted))
    page = ("/metrics", MetricsHandler, {"registry": registry})
    return client, Application([page]).listen(listen, "127.0.0.1")


async def main():
    client, _ = start(*sys.argv[1:])
    await client.wait_closed()  # that is, until Ctrl-C


if __name__ == "__main__":
    asyncio.run(main())
