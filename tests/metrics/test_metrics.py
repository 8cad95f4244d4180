"""Clients and sensors as Prometheus sees them, read as Prometheus would: as text, through the handler."""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Optional

import pytest
from tornado import gen, web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port

from katcp_tornado import Client, FailReply, RequestTimeout, SensorInfo, SensorWatcher, State, Timestamp
from katcp_tornado.testing import Answer, Delay, FakeDevice, Silent

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.core import GaugeMetricFamily  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as parse  # noqa: E402

from katcp_tornado.metrics import ClientCollector, Metric, MetricsHandler, SensorCollector, hinted  # noqa: E402

Connect = Callable[..., Client]
Key = tuple[str, frozenset[tuple[str, str]]]


def scrape(*collectors: Any) -> dict[Key, float]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return samples(generate_latest(registry).decode())


def samples(text: str) -> dict[Key, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def key(metric: str, **labels: str) -> Key:
    return metric, frozenset({"device": "m000", **labels}.items())


async def mirrored(client: Client, **options: Any) -> SensorWatcher:
    watcher = SensorWatcher(client, **options)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=10)
    return watcher


@pytest.mark.gen_test
async def test_a_client(io_loop: IOLoop, device: FakeDevice, connect: Connect) -> None:
    client = connect()
    await client.wait_connected(timeout=10)
    await client.request("watchdog")
    found = scrape(ClientCollector({"m000": client}))
    assert found[key("katcp_client_connected")] == 1
    assert found[key("katcp_client_state", state="connected")] == 1
    assert sum(name == "katcp_client_state" for name, _ in found) == 1
    assert found[key("katcp_client_requests_total")] == 1
    assert found[key("katcp_client_received_bytes_total")] == client.stats.bytes_in > 0
    assert found[key("katcp_client_sent_bytes_total")] == client.stats.bytes_out > 0
    assert found[key("katcp_client_last_received_timestamp_seconds")] == pytest.approx(client.stats.last_rx)

    device.stop()
    await client.wait_disconnected(timeout=10)
    found = scrape(ClientCollector({"m000": client}))
    assert found[key("katcp_client_connected")] == 0
    assert found[key("katcp_client_state", state="sleeping")] == 1
    assert found[key("katcp_client_disconnects_total", cause="DeviceDisconnected")] == 1


@pytest.mark.gen_test
async def test_latency_if_asked_for(io_loop: IOLoop, device: FakeDevice, connect: Connect) -> None:
    client = connect()
    clients = {"m000": client}
    collector = ClientCollector(clients, latency=[0.5, 2.0])
    await client.wait_connected(timeout=10)
    device.on_request("echo", Delay(1.0), Delay(3.0), Answer("fail", "no"), Silent())
    await client.request("echo")
    await client.request_raw("echo")
    for error in (FailReply, RequestTimeout):
        with pytest.raises(error):
            await client.request("echo", timeout=5)
    found = scrape(collector)
    name = "katcp_client_request_duration_seconds"
    assert [found[key(name + "_bucket", le=bound)] for bound in ("0.5", "2.0", "+Inf")] == [1, 2, 3]
    assert found[key(name + "_sum")] == pytest.approx(4.0, abs=0.1) and found[key(name + "_count")] == 3

    del clients["m000"]
    assert scrape(collector) == {}
    await client.request("echo")
    clients["m000"] = client
    assert scrape(collector)[key(name + "_count")] == 0, "a member that comes later, from then on"
    assert not [name for name, _ in scrape(ClientCollector(clients)) if "duration" in name]
    for wrong in ([2.0, 1.0], [1.0, math.inf]):
        with pytest.raises(ValueError, match="buckets"):
            ClientCollector(clients, latency=wrong)


@pytest.mark.gen_test
async def test_a_client_that_has_heard_nothing(io_loop: IOLoop, connect: Connect) -> None:
    found = scrape(ClientCollector({"m000": connect()}))
    assert found[key("katcp_client_attempts_total")] == 0
    assert key("katcp_client_last_received_timestamp_seconds") not in found


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("type_", "value", "params", "expected"),
    [
        ("integer", 7, (), 7.0),
        ("float", -1.5, (), -1.5),
        ("float", math.inf, (), math.inf),
        ("boolean", True, (), 1.0),
        ("timestamp", Timestamp(12.5), (), 12.5),
        ("discrete", "idle", ("busy", "idle"), 1.0),
        ("string", b"text", (), None),
    ],
)
async def test_values(
    io_loop: IOLoop,
    device: FakeDevice,
    connect: Connect,
    type_: str,
    value: Any,
    params: tuple[str, ...],
    expected: Optional[float],
) -> None:
    device.add_sensor("x", type_, value, params=params)
    watcher = await mirrored(connect(), filter=lambda info: info.name == "x")
    found = scrape(SensorCollector({"m000": watcher}))
    assert found.get(key("katcp_sensor_value", sensor="x")) == expected


@pytest.mark.gen_test
async def test_nothing_that_is_not_current(io_loop: IOLoop, device: FakeDevice, connect: Connect) -> None:
    device.add_sensor("x", "float", 2.5, units="V", description='a "text"\nof two lines')
    client = connect()
    watcher = await mirrored(client, filter=lambda info: info.name == "x")
    collector = SensorCollector({"m000": watcher})
    found = scrape(collector)
    assert found[key("katcp_sensor_value", sensor="x")] == 2.5
    assert found[key("katcp_sensor_status", sensor="x", status="nominal")] == 1
    assert found[key("katcp_sensor_timestamp_seconds", sensor="x")] == float(watcher.sensors["x"].reading.timestamp)  # type: ignore[union-attr]
    info = key("katcp_sensor_info", sensor="x", type="float", units="V", description='a "text"\nof two lines')
    assert found[info] == 1

    device.set_sensor("x", 2.5, "failure")
    await watcher.wait("x", lambda reading: reading.status.value == "failure", timeout=10)
    found = scrape(collector)
    assert key("katcp_sensor_value", sensor="x") not in found
    assert found[key("katcp_sensor_status", sensor="x", status="failure")] == 1

    device.stop()
    await client.wait_disconnected(timeout=10)
    found = scrape(collector)
    assert [name for name, _ in found if name == "katcp_sensor_status"] == ["katcp_sensor_status"]
    assert found[key("katcp_sensor_status", sensor="x", status="unreachable")] == 1
    assert key("katcp_sensor_value", sensor="x") not in found
    assert key("katcp_sensor_timestamp_seconds", sensor="x") not in found


def info(name: str, description: str) -> SensorInfo:
    return SensorInfo(name, description, "", "integer", [])


@pytest.mark.parametrize(
    ("name", "description", "expected"),
    [
        ("heaps", "Heaps. (prometheus: counter)", ("katcp_heaps", "counter", {})),
        ("a.b.rx-heaps", "x prometheus: gauge labels: n", ("katcp_rx_heaps", "gauge", {"n": "b", "service": "a"})),
        ("i.0.x", "prometheus: Counter labels: kind,n", ("katcp_x", "counter", {"kind": "i", "n": "0"})),
        ("t", "prometheus: histogram(0.5, 2)", ("katcp_t", "histogram", {})),
        ("x", "prometheus: gauge labels: a", None),
        ("x", "prometheus: summary", None),
        ("x", "of Prometheus", None),
    ],
)
def test_hints(name: str, description: str, expected: Optional[tuple[str, str, Mapping[str, str]]]) -> None:
    metric = hinted(info(name, description))
    assert (metric and (metric.name, metric.kind, metric.labels)) == expected


@pytest.mark.gen_test
async def test_metrics_of_their_own(io_loop: IOLoop, device: FakeDevice, connect: Connect) -> None:
    device.add_sensor("rx.heaps", "integer", 5, description="prometheus: counter")
    device.add_sensor("delay", "float", 1.0, description="prometheus: histogram(0.5, 2)")
    client = connect()
    watcher = await mirrored(client, filter=lambda info: "prometheus" in info.description)
    collector = SensorCollector({"m000": watcher}, partial(hinted, prefix="p_"))
    found = scrape(collector)
    assert found[key("p_heaps_total", service="rx")] == 5
    assert found[key("p_delay_count")] == 1

    device.set_sensor("delay", 0.1)
    device.set_sensor("delay", 0.2)
    device.set_sensor("delay", 7.0)
    await watcher.wait("delay", 7.0, timeout=10)
    reading = watcher.sensors["delay"].reading
    device.inform_all("sensor-status", reading.timestamp, 1, "delay", "nominal", 7.0)  # type: ignore[union-attr]  # delivered twice
    await client.request("watchdog")  # and read by now
    found = scrape(collector)
    assert [found[key("p_delay_bucket", le=bound)] for bound in ("0.5", "2.0", "+Inf")] == [2, 3, 4]
    assert found[key("p_delay_sum")] == pytest.approx(8.3)


@pytest.mark.gen_test
async def test_a_describe_function_that_goes_wrong(
    io_loop: IOLoop, device: FakeDevice, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    answers: dict[str, Any] = {
        "raises": 1 / 3,
        "taken": Metric("katcp_sensor_value"),
        "label": Metric("p", labels={"device": "x"}),
        "kind": Metric("p", "summary"),
        "first": Metric("p", "gauge"),
        "second": Metric("p", "counter"),
    }
    for name in answers:
        device.add_sensor(name, "integer", 1)
    watcher = await mirrored(connect(), filter=lambda info: info.name in answers)
    collector = SensorCollector({"m000": watcher}, lambda info: answers[info.name]._replace())
    with caplog.at_level(logging.ERROR):
        found = scrape(collector, CollectorRegistry())
        assert scrape(collector) == found
    assert found[key("p")] == 1
    assert sum(name.startswith("p") for name, _ in found) == 1
    assert len(caplog.records) == 5  # each once
    caplog.clear()


@pytest.mark.gen_test
async def test_the_handler(io_loop: IOLoop, device: FakeDevice, connect: Connect) -> None:
    device.add_sensor("x", "integer", 3)
    client = connect()
    watcher = await mirrored(client)
    registry = CollectorRegistry()
    registry.register(ClientCollector({"m000": client}))
    registry.register(SensorCollector({"m000": watcher}))
    sock, port = bind_unused_port()
    server = HTTPServer(web.Application([("/metrics", MetricsHandler, {"registry": registry})]))
    server.add_socket(sock)
    url = f"http://127.0.0.1:{port}/metrics"
    http = AsyncHTTPClient(force_instance=True)
    try:
        plain = await http.fetch(url, decompress_response=False)
        assert plain.headers["Content-Type"].startswith("text/plain; version=")
        assert samples(plain.body.decode())[key("katcp_sensor_value", sensor="x")] == 3

        accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
        reply = await http.fetch(url, headers=accept, decompress_response=False)
        assert reply.headers["Content-Encoding"] == "gzip"
        families = {family.name for family in parse_openmetrics(gzip.decompress(reply.body).decode())}  # type: ignore[no-untyped-call]
        assert {"katcp_client_requests", "katcp_sensor", "katcp_sensor_value"} <= families

        one = await http.fetch(url + "?name[]=katcp_client_connected")
        assert list(samples(one.body.decode())) == [key("katcp_client_connected")]
        assert client.state is State.CONNECTED
    finally:
        http.close()
        server.stop()
        await server.close_all_connections()


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_a_scraper_that_hangs_up(io_loop: IOLoop, caplog: pytest.LogCaptureFixture) -> None:
    """Prometheus does when its patience ends: nothing to be logged."""

    class Large:
        def collect(self) -> list[GaugeMetricFamily]:
            family = GaugeMetricFamily("large", "More than the system takes.", labels=["name"])
            for number in range(60_000):
                family.add_metric([f"{number:0200}"], 1.0)
            return [family]

    registry = CollectorRegistry()
    registry.register(Large())
    answered: list[Any] = []
    routes: list[Any] = [("/metrics", MetricsHandler, {"registry": registry})]
    server = HTTPServer(web.Application(routes, log_function=answered.append))
    sock, port = bind_unused_port()
    server.add_socket(sock)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await reader.read(1000)
    writer.transport.abort()
    while not answered:
        await gen.sleep(0.05)
    server.stop()
    assert [record.getMessage() for record in caplog.records] == []
