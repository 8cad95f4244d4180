"""What goes wrong in a soak: the process of the device, and the faults that are drawn. Part of soak.py."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import harness
from tornado.process import Subprocess


class Device:
    """The process of the device."""

    def __init__(self, lifetime: float) -> None:
        command = [sys.executable, str(harness.HERE / "soak_device.py"), "--lifetime", str(lifetime)]
        environment = harness.environment("inner")
        self._process = Subprocess(command, stdin=Subprocess.STREAM, stdout=Subprocess.STREAM, env=environment)
        self._turn = asyncio.Lock()
        self.pid = self._process.pid

    async def start(self) -> int:
        """Returns its port."""
        return int(await self._process.stdout.read_until(b"\n"))

    async def order(self, order: str, **options: Any) -> Any:
        """Give an order; returns the answer."""
        async with self._turn:
            await self._process.stdin.write(json.dumps({"order": order, **options}).encode() + b"\n")
            return json.loads(await self._process.stdout.read_until(b"\n", max_bytes=1 << 28))

    def close(self) -> None:
        process = self._process.proc
        process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Fault(NamedTuple):
    """Something that goes wrong, for some seconds."""

    name: str
    options: dict[str, Any]
    seconds: float


def draw_faults(rng: random.Random) -> Iterator[Fault]:
    """Faults, for ever: each kind once, in a random order, and again."""

    def flag() -> bool:
        return rng.random() < 0.5

    reason = "\x1b[31mnobody\r\n!work ok\x00 \u2028knows\\"
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "slow_line": lambda: {"latency": rng.uniform(0.05, 0.5), "bandwidth": rng.uniform(1e4, 1e6)},
        "sliced": lambda: {"slice": rng.randint(1, 100)},
        "black_hole": lambda: rng.choice(
            [{"to_client": a, "to_device": b} for a, b in ((True, True), (True, False), (False, True))]
        ),
        "reset_after": lambda: {"limit": rng.randint(0, 20_000)},
        "cut": dict,
        "reset": dict,
        "forget": dict,
        "half_close": lambda: {"to_client": flag()},
        "refuse": dict,
        "disconnect": lambda: {"reason": reason},
        "restart": lambda: {"kill": flag()},
        "silent": dict,
        "flap": dict,
        "stall": dict,
        "mute": dict,
        "deaf": dict,
        "garbage": dict,
        "endless_line": dict,
        "hang": dict,  # the process of the device stops
        "hold_up": dict,  # the loop of the client is held up
    }
    while True:
        names = list(kinds)
        rng.shuffle(names)
        for name in names:
            yield Fault(name, kinds[name](), rng.choice([0.0, rng.uniform(0.1, 1.0), rng.uniform(1.0, 5.0)]))
