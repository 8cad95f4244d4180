"""A device for a server whose calls come in threads of its own, as those of Tango do."""

from katcp_tornado.blocking import BlockingDevice

#: From the status of a sensor to the quality of an attribute.
QUALITIES = {"nominal": "VALID", "warn": "WARNING", "error": "ALARM"}


class Attributes:
    """The sensors of a device as attributes, its requests as commands, from any thread."""

    def __init__(self, host, port):
        self.device = BlockingDevice(host, port)
        self.mirror = self.device.client.mirror()

    def names(self, timeout=10):
        self.mirror.synced(timeout)
        return sorted(self.mirror.sensors)

    def read(self, name):
        """Value, seconds since the Unix epoch, and quality; from memory, without a wait."""
        reading = self.mirror.sensors[name].reading
        quality = QUALITIES.get(reading.status.value, "INVALID")
        return reading.value, float(reading.timestamp), quality

    def command(self, name, *args, timeout=5):
        return self.device.req[name](*args, timeout=timeout).arguments

    def close(self):
        self.device.close()
