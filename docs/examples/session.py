"""A device for an interactive session: ``ipython -i session.py HOST PORT``."""

import atexit
import sys

from katcp_tornado.blocking import BlockingDevice

host, port = sys.argv[1:]
device = BlockingDevice(host, int(port))
atexit.register(device.close)  # it keeps its connection until the session ends
device.synced(timeout=10)

print(f"device.req has {len(device.req)} requests, device.sensor {len(device.sensor)} sensors:")
for name, sensor in device.sensor.items():
    print(f"  {name:20} {sensor.info.description}")


def show(pattern="/./"):
    """Print the readings of the sensors that match a regular expression."""
    for name, found in device.read(pattern, timeout=10).items():
        if isinstance(found, Exception):
            print(f"{name:20} {found}")
        else:
            print(f"{name:20} {found.value!s:12} {found.status.value}")


def settle(name, value, timeout=60):
    """Set an attenuation, and wait until the sensor of that name says so."""
    device.req[f"set-{name}"](value, timeout=5)
    return device.sensor[name].wait(value, timeout=timeout)
