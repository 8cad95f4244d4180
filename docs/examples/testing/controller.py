"""A controller that keeps a receiver as it is wanted, whatever happens to it."""

import logging

from tornado import gen, locks

from katcp_tornado import Client, ConnectionLost, KatcpError, RequestTimeout

log = logging.getLogger("controller")


class Receiver:
    """Sets the attenuation of a receiver, and knows its temperature.

    ``temperature`` is None while it is not known. ``ready`` is a `tornado.locks.Event`
    that is set while the receiver is connected, and as it is wanted.
    """

    def __init__(self, host, port):
        self.temperature = None
        self.ready = locks.Event()
        self._attenuation = None
        self._client = Client(host, port, watchdog=10, watchdog_timeout=5)
        self._client.add_connected_callback(self._restore)
        self._client.add_disconnected_callback(self._lost)
        self._sampled = self._client.subscribe("temperature", self._heard)

    def close(self):
        self._client.close()

    @property
    def trouble(self):
        """Why the receiver is not connected; None if it is."""
        return self._client.last_exc

    @gen.coroutine
    def set_attenuation(self, db):
        """Set it, now or when the receiver is back; doing it twice does no harm."""
        while True:
            try:
                yield self._send("set-attenuation", db, wait_connected=True)
            except (ConnectionLost, RequestTimeout) as exc:
                log.warning("again: %s", exc)
            else:
                self._attenuation = db
                return

    @gen.coroutine
    def fire_calibration_pulse(self):
        """Fire it, at most once. Raises an error that says whether it was ``sent``."""
        yield self._send("fire-calibration-pulse")

    def _send(self, name, *args, **options):
        return self._client.request(name, *args, timeout=20, **options)

    @gen.coroutine
    def _restore(self):
        # The client puts the sampling back. The setting may have been forgotten, too.
        try:
            yield self._sampled.synced(timeout=20)
            if self._attenuation is not None:
                yield self._send("set-attenuation", self._attenuation)
        except KatcpError as exc:
            log.error("not restored: %s", exc)  # if the link was lost, we will be back
        else:
            if self._client.is_connected:
                self.ready.set()

    def _lost(self):
        self.ready.clear()

    def _heard(self, reading):
        self.temperature = reading.value if reading.status.valid_value else None
