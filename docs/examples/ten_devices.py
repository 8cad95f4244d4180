"""Keep a mode in ten devices, of which nine are enough."""

import sys

from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import ClientGroup, Device, KatcpError


class Controller:
    """Sets a mode in all devices; one that has restarted gets it again."""

    def __init__(self, addresses, quorum=0.9):
        self.quorum = quorum
        self.mode = None
        self.group = ClientGroup({})
        for name, (host, port) in addresses.items():
            device = Device(host, port, name=name)
            self.group.add(name, device)
            device.client.add_connected_callback(lambda device=device: self.restore(device))

    @gen.coroutine
    def configure(self, mode):
        """Set the mode; returns the names of the devices that are in it.

        Raises QuorumNotReached if these are too few.
        """
        yield self.group.wait_connected(timeout=30, quorum=self.quorum)
        self.mode = mode
        reply = yield self.group.request("configure", mode, timeout=10, quorum=self.quorum)
        for name, error in reply.failures.items():
            print(f"{name} is not configured: {error}")
        reply.check()
        ready = yield self.group.wait("mode", mode, timeout=60, quorum=self.quorum, grace=1)
        return list(ready.check().replies)

    @gen.coroutine
    def restore(self, device):
        """A device has connected: after a restart it has no mode."""
        if self.mode is not None:
            try:
                yield device.client.request("configure", self.mode, timeout=10)
                print(f"{device.name} is back in mode {self.mode}")
            except KatcpError as exc:
                print(f"{device.name} is not configured: {exc}")

    @gen.coroutine
    def close(self):
        self.group.close()
        yield self.group.wait_closed()


@gen.coroutine
def main(addresses):
    controller = Controller(addresses)
    ready = yield controller.configure("observe")
    print(f"{len(ready)} of {len(addresses)} devices observe")
    yield controller.group.wait_closed()  # that is, until Ctrl-C


if __name__ == "__main__":
    first = int(sys.argv[1])
    IOLoop.current().run_sync(lambda: main({f"m{n:03}": ("localhost", first + n) for n in range(10)}))
