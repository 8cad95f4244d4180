"""A collector of the figures of clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as MetricFamily

from .on_loop import client_of, loop_of, on_loop


class ClientCollector:
    """A collector of what `.Client.stats` says, for each of *clients*.

    :arg clients: a mapping from the name of a device, the label ``device``, to its `.Client` or Device. It is read
        anew at each scrape, so members may come and go.

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
    ================================================  =======  =====================================================
    """

    def __init__(self, clients: Mapping[str, Any]) -> None:
        self._clients = clients

    def describe(self) -> Iterable[MetricFamily]:
        """The families without samples: what prometheus_client asks for at registration."""
        return self._families([])

    def collect(self) -> Iterable[MetricFamily]:
        """The families of this moment."""
        rows = []
        for name, member in list(self._clients.items()):
            client = client_of(member)
            stats, state = on_loop(loop_of(client), lambda client=client: (client.stats, client.state))  # type: ignore[misc]
            rows.append((str(name), stats, state))
        return self._families(rows)

    @staticmethod
    def _families(rows: Sequence[tuple[str, Any, Any]]) -> list[MetricFamily]:
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
        for name, stats, state in rows:
            label = [name]
            connected.add_metric(label, state.name == "CONNECTED")
            current.add_metric([name, state.name.lower()], 1)
            if stats.last_rx is not None:
                last.add_metric(label, stats.last_rx)
            for cause, count in stats.disconnects.items():
                causes.add_metric([name, cause], count)
            for field, family in totals.items():
                family.add_metric(label, getattr(stats, field))
        return [connected, current, *totals.values(), causes, last]


_CLIENT_TOTALS = (
    ("attempts", "attempts", "Attempts to connect."),
    ("connects", "connects", "Attempts that led to a connection."),
    ("requests", "requests", "Requests sent."),
    ("timeouts", "timeouts", "Requests that had no reply in time."),
    ("received_bytes", "bytes_in", "Bytes received."),
    ("sent_bytes", "bytes_out", "Bytes sent."),
    ("informs", "informs", "Informs received."),
)
