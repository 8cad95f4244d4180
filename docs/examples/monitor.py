"""Print what the sensors of some devices say: ``monitor.py HOST:PORT ...``."""

import asyncio
import sys
from datetime import datetime, timezone

from katcp_tornado import Client, SensorWatcher


class Monitor(SensorWatcher):
    """Prints each reading of a device, and how its state goes."""

    def __init__(self, client):
        super().__init__(client, strategy="event")
        self.host = client.host
        client.add_sensor_watcher(self)

    def sensor_updated(self, name, reading):
        when = datetime.fromtimestamp(reading.timestamp, timezone.utc)
        print(f"{when:%H:%M:%S} {self.host} {name} {reading.status.value} {reading.value}")

    def state_updated(self, state):
        print(f"{self.host} is {state.value}: {self.last_exc or 'all is well'}")


async def main(addresses):
    clients = [Client(*address.rsplit(":", 1)) for address in addresses]
    monitors = [Monitor(client) for client in clients]
    await asyncio.gather(*(monitor.synced() for monitor in monitors))
    print(f"{sum(len(monitor.sensors) for monitor in monitors)} sensors")
    await asyncio.gather(*(client.wait_closed() for client in clients))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
