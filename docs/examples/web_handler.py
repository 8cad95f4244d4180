"""A Tornado handler that answers with the current value of a sensor, and 503 while there is none."""

from __future__ import annotations

from typing import Any

from tornado.web import Application, RequestHandler

from katcp_tornado import Client, Subscription


class Temperature(RequestHandler):
    """What the receiver's temperature is now."""

    def initialize(self, subscription: Subscription) -> None:
        self.subscription = subscription

    def get(self) -> None:
        reading = self.subscription.readings.get("temperature")
        if reading is None or not reading.status.valid_value:
            self.set_status(503)
        self.write(reading.plain() if reading is not None else {"status": "unknown"})


def make_application(client: Client) -> Application:
    """The subscription lives as long as the client, through all reconnections; nothing is asked per web request."""
    subscription = client.subscribe("temperature", strategy="event")
    routes: list[Any] = [("/temperature", Temperature, {"subscription": subscription})]
    return Application(routes)
