"""The same measurement with katcp-python: ``python3.9 katcp_python.py katcp WORKLOAD PORT``, as worker.py.

It needs an interpreter of its own, since katcp 0.9 pins Tornado below 5, which runs on no Python after 3.9; and
lines of its own, since its client has other names.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from typing import Any, Callable

import katcp  # type: ignore[import-not-found, unused-ignore]
import tornado
from measuring import HOST, PARTS, Meter
from tornado import gen
from tornado.concurrent import Future
from tornado.ioloop import IOLoop


class Client(katcp.AsyncClient):  # type: ignore[misc]
    """One whose ``#sensor-status`` are counted, with the types that the other libraries' callback asks for."""

    awaited = 0
    everything: Any = None

    def inform_sensor_status(self, message: Any) -> None:
        """Count it."""
        float(message.arguments[0]), int(message.arguments[1])
        self.awaited -= 1
        if not self.awaited:
            self.everything.set_result(None)


async def request(client: Client, rounds: int) -> None:
    for _ in range(rounds):
        await client.future_request(katcp.Message.request("ping"))


async def informs(client: Client, rounds: int) -> None:
    for _ in range(rounds):
        _, got = await client.future_request(katcp.Message.request("informs", "1000"), timeout=60)
        assert len(got) == 1000


async def flood(client: Client, rounds: int) -> None:
    for _ in range(rounds):
        client.awaited, client.everything = 6000, Future()
        await client.future_request(katcp.Message.request("flood", "6000"), timeout=60)
        await client.everything


#: The work, how many operations are in a round, and how many to measure.
WORKLOADS: dict[str, tuple[Callable[[Client, int], Any], int, int]] = {
    "request": (request, 1, 4_000),
    "informs": (informs, 1_000, 20_000),
    "flood": (flood, 6_000, 60_000),
}


@gen.coroutine
def run(name: str, port: int, amount: int | None) -> Any:
    work, each, usual = WORKLOADS[name]
    client = Client(HOST, port, auto_reconnect=False)
    client.set_ioloop(IOLoop.current())
    client.start()
    yield client.until_protocol()
    meter = Meter()
    rounds = max(1, (amount or usual) // each // PARTS)
    yield work(client, rounds)
    for _ in range(PARTS):
        with meter:
            yield work(client, rounds)
    client.stop()
    return [seconds / (rounds * each) for seconds in meter.parts]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one workload with katcp-python and print JSON.")
    parser.add_argument("library", choices=["katcp"])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("port", type=int)
    parser.add_argument("--amount", type=int)
    args = parser.parse_args()
    parts = IOLoop.current().run_sync(lambda: run(args.workload, args.port, args.amount))
    versions = {"katcp": katcp.__version__, "tornado": tornado.version, "python": platform.python_version()}
    json.dump({"versions": versions, "mean": statistics.mean(parts), "best": min(parts)}, sys.stdout)


if __name__ == "__main__":
    main()
