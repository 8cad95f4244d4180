"""A KATCP server and a web page with the sensors of a device: ``proxy.py HOST PORT``."""

import asyncio
import enum
import sys

import aiokatcp
from tornado import web

from katcp_tornado import Client, SensorWatcher

#: From the type on the wire to that of the server, and the function that makes such a value.
TYPES = {
    "integer": (int, int),
    "float": (float, float),
    "boolean": (bool, bool),
    "timestamp": (aiokatcp.Timestamp, aiokatcp.Timestamp),
    "address": (aiokatcp.Address, lambda value: aiokatcp.Address.parse(str(value).encode())),
}


class Word(enum.Enum):  # the base of the types of discrete sensors
    katcp_value = property(lambda self: self.name.encode())


class Server(aiokatcp.DeviceServer):
    VERSION = BUILD_STATE = "proxy-1.0"


class Proxy(SensorWatcher):
    """Gives a server the sensors of a device: ``temperature`` is ``m000.temperature``."""

    def __init__(self, client, server, prefix):
        super().__init__(client, rename=lambda name: f"{prefix}.{name}")
        self.server = server
        self.made = {}

    def sensor_added(self, name, info):
        kind, self.made[name] = TYPES.get(info.type_name, (bytes, bytes))
        if info.values:
            kind = Word("Discrete", {word: number for number, word in enumerate(info.values)})
            self.made[name] = kind.__getitem__
        self.server.sensors.add(aiokatcp.Sensor(kind, name, info.description, info.units))
        self.server.mass_inform("interface-changed", "sensor", name, "added")

    def sensor_removed(self, name):
        self.server.sensors.pop(name)
        self.server.mass_inform("interface-changed", "sensor", name, "removed")

    def sensor_updated(self, name, reading):
        sensor = self.server.sensors[name]
        value = sensor.value  # the last one stays where there is none; the status says so
        if reading.value is not None:
            value = self.made[name](reading.value)
        sensor.set_value(value, aiokatcp.Sensor.Status[reading.status.name], reading.timestamp)


async def start(host, port, katcp_port=7200, web_port=8080):
    """Returns the client, the KATCP server and the web server."""
    client, server = Client(host, port), Server("127.0.0.1", katcp_port)
    proxy = Proxy(client, server, "m000")
    client.add_sensor_watcher(proxy)
    await server.start()

    class Page(web.RequestHandler):
        def get(self):
            sensors = proxy.sensors.items()
            self.write({name: one.reading.plain() for name, one in sensors if one.reading})

    return client, server, web.Application([("/", Page)]).listen(web_port, "127.0.0.1")


async def main():
    _, server, _ = await start(*sys.argv[1:])
    await server.join()


if __name__ == "__main__":
    asyncio.run(main())
