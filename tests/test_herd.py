"""A thousand clients of one server, simulated: what it sees of them is bounded. The simulation counts as a client does.

The bars: of 1000 clients whose server was away for a minute or more, at most 2.5 % come in any 100 ms and 10 % in any
second, and all are back after the longest delay; of those that lose it for a moment, at most 15 % come in any 100 ms.
A device that loses its client again and again is tried at most 60 times in ten minutes.
"""

from __future__ import annotations

import math
import random
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tornado import gen
from tornado.netutil import Resolver, bind_unix_socket
from tornado.tcpserver import TCPServer

from katcp_tornado import Backoff, Client, State
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import herd

BACKOFF = Backoff()


# The simulation is right


class Device(TCPServer):
    """Does to real clients what a `herd.Server` says, beginning with `lose`.

    It listens on a Unix socket: a connect is done at once there, however busy the machine is.
    """

    def __init__(self, io_loop: VirtualTimeLoop, path: Any, server: Any) -> None:
        super().__init__()
        self.io_loop = io_loop
        self.address = str(path / "device")
        self.streams: list[Any] = []
        self.lost = None  # when
        self._server = server
        self._lives = math.inf
        self.add_socket(bind_unix_socket(self.address))

    def now(self) -> Any:
        return self.io_loop.asyncio_loop.time()

    def handle_stream(self, stream: Any, address: Any) -> None:
        stream.write(b"#version-connect katcp-protocol 5.1-MIB\n")
        if self._lives == 0:
            stream.close()
        elif self._lives < math.inf:
            self.io_loop.call_later(self._lives, stream.close)
        self.streams.append(stream)

    def ask(self) -> bool:
        """Whether an attempt of now succeeds."""
        if self.lost is not None:
            self._lives = self._server(self.now() - self.lost)
        return self._lives is not None

    def lose(self) -> None:
        """Lose all clients."""
        self.lost = self.now()
        for stream in self.streams:
            stream.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
        for stream in self.streams:
            stream.close()


class Way(Resolver):
    """The way to a `Device`, if there is one."""

    def initialize(self, device: FakeDevice) -> None:
        self._device = device

    async def resolve(self, host: Any, port: Any, family: Any = socket.AF_UNSPEC) -> Any:
        if not self._device.ask():  # type: ignore[attr-defined]
            raise ConnectionRefusedError("the device is away")
        return [(socket.AF_UNIX, self._device.address)]


class Tried(Client):
    """A client that keeps the times of its attempts."""

    def __init__(self, device: FakeDevice, backoff: Any) -> None:
        super().__init__("device", 7147, backoff=backoff, resolver=Way(device))
        self.times: list[Any] = []
        self.add_state_callback(lambda old, new: self.times.append(device.now()) if new is State.CONNECTING else None)  # type: ignore[operator]

    def attempts(self, device: FakeDevice) -> Any:
        return [when - device.lost for when in self.times]  # type: ignore[attr-defined]


def times_of(policy: Any, server: Any, until: Any) -> Any:
    return pytest.approx([when for when, _ in herd.attempts_of(policy, server, until)], abs=1e-6)


@pytest.mark.parametrize("outage", herd.OUTAGES)
@pytest.mark.gen_test
async def test_the_simulation_is_a_client_in_an_outage(io_loop: VirtualTimeLoop, tmp_path: Path, outage: Any) -> None:
    server = herd.outage(outage)
    with Device(io_loop, tmp_path, server) as device:
        clients = [Tried(device, Backoff(random=random.Random(seed))) for seed in range(30)]
        await gen.multi([client.wait_connected() for client in clients])
        await gen.sleep(BACKOFF.stable)
        device.lose()
        await gen.sleep(outage + 40)
        for seed, client in enumerate(clients):
            assert client.is_connected
            assert client.attempts(device) == times_of(herd.Ours(random.Random(seed)), server, outage + 40)
            client.close()


@pytest.mark.parametrize("lives", [0, 5, 9.9, 10.1, 25])
@pytest.mark.gen_test
async def test_the_simulation_is_a_client_of_a_flapping_device(
    io_loop: VirtualTimeLoop, tmp_path: Path, lives: float
) -> None:
    server = herd.flapping(lives)
    with Device(io_loop, tmp_path, server) as device, Tried(device, Backoff(random=random.Random(5))) as client:
        await client.wait_connected()
        await gen.sleep(BACKOFF.stable)
        device.lose()
        await gen.sleep(herd.FLAPPING)
        assert client.attempts(device) == times_of(herd.Ours(random.Random(5)), server, herd.FLAPPING)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.gen_test
async def test_the_simulation_is_a_client_of_any_device(io_loop: VirtualTimeLoop, tmp_path: Path, seed: Any) -> None:
    """Whatever comes after whatever: attempts that fail, links that live for long or not, and other backoffs."""
    rng = random.Random(seed)
    outcomes = [rng.choice([None, None, None, 0.0, 3.0, 7.0, 12.0]) for _ in range(80)]
    options = {
        "first": rng.choice([0.5, 1.0, 5.0]),
        "maximum": rng.choice([2.0, 30.0]),
        "factor": rng.choice([1.0, 1.5, 2.0]),
        "minimum": rng.choice([0.0, 0.1, 1.0]),
        "stable": rng.choice([0.0, 5.0, 10.0]),
    }

    def server() -> Any:
        script = iter(outcomes)
        return lambda when: next(script, math.inf)

    def backoff() -> Any:
        return Backoff(random=random.Random(seed), **options)  # type: ignore[arg-type]

    with Device(io_loop, tmp_path, server()) as device, Tried(device, backoff()) as client:
        await client.wait_connected()
        await gen.sleep(BACKOFF.stable)
        device.lose()
        await gen.sleep(80 * (30 + 12))
        assert client.is_connected
        assert len(client.times) == len(outcomes) + 1
        assert client.attempts(device) == times_of(herd.Ours(random.Random(), backoff()), server(), math.inf)


def test_the_most_in_a_window() -> None:
    assert herd.most([], 1.0) == 0
    assert herd.most([0.0, 0.5, 0.9, 1.0, 1.2], 1.0) == 4
    assert herd.most([0.0, 1.0, 2.0], 1.0) == 1
    assert herd.most([3.0] * 7, 0.1) == 7


def test_a_herd_is_in_the_order_of_time() -> None:
    attempts = herd.herd(herd.Ours, herd.outage(5.0), 100.0, clients=20)
    assert attempts == sorted(attempts)
    assert sorted(attempt.client for attempt in attempts if attempt.success) == list(range(20))
    assert all(attempt.success == (attempt.when >= 5.0) for attempt in attempts)
    assert attempts == herd.herd(herd.Ours, herd.outage(5.0), 100.0, clients=20)
    assert attempts != herd.herd(herd.Ours, herd.outage(5.0), 100.0, clients=20, seed=1)


# The herd is tame


@pytest.mark.parametrize("outage", herd.OUTAGES)
def test_a_thousand_clients_come_back(outage: Any) -> None:
    for seed in herd.SEEDS:
        found = herd.returning(herd.Ours, outage, seed=seed)
        assert found.back == herd.CLIENTS
        assert found.last <= (BACKOFF.maximum if outage else BACKOFF.first)
        if outage == 0:
            assert found.per_100ms <= 0.15 * herd.CLIENTS
        if outage >= 60:
            assert found.per_100ms <= 0.025 * herd.CLIENTS
            assert found.per_second <= 0.1 * herd.CLIENTS


@pytest.mark.parametrize("lives", [0, 1, 5, 9.9])
def test_a_flapping_device_is_not_hit_hard(lives: float) -> None:
    assert max(herd.hits(herd.Ours, lives=lives, seed=seed) for seed in range(200)) <= 60


@pytest.mark.parametrize("others", [herd.Aiokatcp, herd.Fixed])
def test_the_others_are_over_these_bars(others: Any) -> None:
    """So the bars say something."""
    assert herd.returning(others, 0).per_100ms > 0.15 * herd.CLIENTS
    assert herd.hits(others) > 60


def test_the_others_wait_as_they_do() -> None:
    ours = random.Random(1)
    wild = [(ours.random() + 1.0) * 0.5 * ceiling for ceiling in (1, 2, 4, 8, 16, 32, 60, 60)]
    policy = herd.Aiokatcp(random.Random(1))
    assert [policy.failed() for _ in wild] == wild
    assert 0.5 <= policy.lost(0) <= 1
    assert {herd.Fixed(random.Random(1)).failed(), herd.Fixed(random.Random(1)).lost(0)} == {0.5}
