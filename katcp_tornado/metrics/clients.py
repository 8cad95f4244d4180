"""A collector of the figures of clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Union

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as MetricFamily

from .. import Client
from .histogram import Histogram, check_buckets
from .on_loop import client_of, loop_of, on_loop

#: Upper bounds of the buckets of the latency, in seconds: a device answers in a millisecond, or in a minute.
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class ClientCollector:
    """A collector of what `.Client.stats` says, for each of *clients*.

    :arg clients: a mapping from the name of a device, the label ``device``, to its `.Client` or Device. It is read
        anew at each scrape, so members may come and go.
    :arg latency: True, or the upper bounds of buckets in rising order, for a histogram of how long requests take.
        It counts from now on, for a member that comes later from the first scrape on. By default there is none, and
        nothing stands in the way of a request.

    ================================================  =======  =====================================================
    metric                                            type     meaning
    ================================================  =======  =====================================================
    ``katcp_client_connected``                        gauge    1 if connected, otherwise 0
    ``katcp_client_state{state}``                     gauge    1, for the current state only
    ``katcp_client_attempts_total``                   counter  attempts to connect
    ``katcp_client_connects_total``                   counter  attempts that led to a connection
    ``katcp_client_disconnects_total{cause}``         counter  losses of a connection, by the class name of the cause
    ``katcp_client_requests_total``                   counter  requests sent
    ``katcp_client_timeouts_total``                   counter  requests that had no reply in time
    ``katcp_client_received_bytes_total``             counter  bytes received
    ``katcp_client_sent_bytes_total``                 counter  bytes sent
    ``katcp_client_informs_total``                    counter  informs received
    ``katcp_client_last_received_timestamp_seconds``  gauge    when the last byte came; no sample before the first
    ``katcp_client_request_duration_seconds``         histo-   seconds from the call of a request to its reply, if
                                                      gram     asked for; requests that got none are not in it
    ================================================  =======  =====================================================
    """

    def __init__(self, clients: Mapping[str, Any], *, latency: Union[bool, Sequence[float]] = False) -> None:
        self._clients = clients
        self._bounds = check_buckets(LATENCIES if latency is True else latency or ())
        self._latencies: dict[Client, Histogram] = {}
        if self._bounds:
            self._figures()

    def describe(self) -> Iterable[MetricFamily]:
        """The families without samples: what prometheus_client asks for at registration."""
        return self._families([])

    def collect(self) -> Iterable[MetricFamily]:
        """The families of this moment."""
        return self._families(self._figures())

    def _figures(self) -> list[tuple[str, Any, Any, Any]]:
        """Name, stats, state and latencies of each member."""
        clients = {str(name): client_of(member) for name, member in list(self._clients.items())}
        for client in set(self._latencies) - set(clients.values()):
            latency = self._latencies.pop(client, None)
            if latency is not None:
                on_loop(loop_of(client), partial(client._link.pending.remove_observer, latency.observe_all))
        return [
            (name, *on_loop(loop_of(client), partial(self._figures_of, client))) for name, client in clients.items()
        ]

    def _figures_of(self, client: Client) -> tuple[Any, Any, Any]:
        """Stats, state and latencies of a client; runs on its loop."""
        latency = self._latencies.get(client)
        if latency is None and self._bounds:
            latency = self._latencies[client] = Histogram(self._bounds)
            client._link.pending.add_observer(latency.observe_all)
        if latency is None:
            return client.stats, client.state, None
        client._link.pending.tell_times()
        return client.stats, client.state, latency.copy()

    def _families(self, rows: Sequence[tuple[str, Any, Any, Any]]) -> list[MetricFamily]:
        prefix = "katcp_client_"
        connected = GaugeMetricFamily(prefix + "connected", "Whether the client is connected.", labels=["device"])
        current = GaugeMetricFamily(prefix + "state", "1 for the client's current state.", labels=["device", "state"])
        last = GaugeMetricFamily(
            prefix + "last_received_timestamp_seconds", "When the last byte was received.", labels=["device"]
        )
        causes = CounterMetricFamily(
            prefix + "disconnects", "Connections lost, by the class of the cause.", labels=["device", "cause"]
        )
        totals = {
            field: CounterMetricFamily(prefix + name, text, labels=["device"]) for name, field, text in _CLIENT_TOTALS
        }
        latencies = MetricFamily(
            prefix + "request_duration_seconds", "Seconds from the call of a request to its reply.", "histogram"
        )
        for name, stats, state, latency in rows:
            label = [name]
            connected.add_metric(label, state.name == "CONNECTED")
            current.add_metric([name, state.name.lower()], 1)
            if stats.last_rx is not None:
                last.add_metric(label, stats.last_rx)
            for cause, count in stats.disconnects.items():
                causes.add_metric([name, cause], count)
            for field, family in totals.items():
                family.add_metric(label, getattr(stats, field))
            if latency is not None:
                latencies.samples += latency.samples(latencies.name, {"device": name})
        return [connected, current, *totals.values(), causes, last, *([latencies] if self._bounds else ())]


_CLIENT_TOTALS = (
    ("attempts", "attempts", "Attempts to connect."),
    ("connects", "connects", "Attempts that led to a connection."),
    ("requests", "requests", "Requests sent."),
    ("timeouts", "timeouts", "Requests that had no reply in time."),
    ("received_bytes", "bytes_in", "Bytes received."),
    ("sent_bytes", "bytes_out", "Bytes sent."),
    ("informs", "informs", "Informs received."),
)
