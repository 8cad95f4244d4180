"""Cost of a hostile peer: CPU time, how long it holds up the loop at a time, and memory.

Each attack is made by a thread of this process, which plays bytes, on a client in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import harness

from katcp_tornado import Client, KatcpError
from katcp_tornado.transport.stream import Stream

GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"
MB = 1024**2
TIMEOUT = 60.0


class Attack(NamedTuple):
    """Bytes that the peer sends."""

    title: str
    greeting: bytes
    line: bytes
    size: int  # bytes in all
    segments: bool = False  # in segments of one byte


def _arguments(argument: bytes, size: int) -> bytes:
    return b"#a" + argument * (size // len(argument)) + b"\n"


ATTACKS = {
    "blank": Attack("empty lines", b"", b"\n", 2 * MB),
    "malformed": Attack("lines that are no messages", b"", b"x\n", 2 * MB),
    "informs": Attack("the shortest of informs", b"", b"#a\n", 2 * MB),
    "line": Attack("lines of 60 kB", b"", b"#a " + b"x" * 60_000 + b"\n", 2 * MB),
    "arguments": Attack("lines of 60 kB, arguments of 2 bytes", b"", _arguments(b" bb", 60_000), 2 * MB),
    "endless": Attack("a line without end", b"", b"x" * MB, 2 * MB),
    "bytes": Attack("segments of one byte", b"", b"#a\n", 30_000, segments=True),
    "late-malformed": Attack("lines that are no messages", GREETING, b"x\n", 4 * MB),
    "late-informs": Attack("the shortest of informs", GREETING, b"#a\n", 4 * MB),
    "late-line": Attack("a line of 16 MB", GREETING, b"#a " + b"x" * (16 * MB - 10) + b"\n", 16 * MB),
    "late-arguments": Attack(
        "a line of 16 MB, arguments of 2 bytes", GREETING, _arguments(b" bb", 16 * MB - 10), 16 * MB
    ),
    "late-endless": Attack("a line without end", GREETING, b"x" * MB, 20 * MB),
}


def attack(listener: socket.socket, plan: Attack) -> None:
    """Serve one client."""
    with contextlib.suppress(OSError):
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(plan.greeting)
            piece = plan.line * max(1, min(plan.size, MB) // len(plan.line))
            left = plan.size
            while left > 0:
                if plan.segments:
                    for i in range(len(piece)):
                        sock.send(piece[i : i + 1])
                        time.sleep(1e-4)
                else:
                    sock.sendall(piece)
                left -= len(piece)


def peak() -> float:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


async def suffer(port: int) -> dict[str, Any]:
    """Be the client, and measure."""
    held = 0.0
    read = Stream.read_from_fd

    def timed_read(stream: Stream, buf: Any) -> Optional[int]:
        nonlocal held
        began = time.process_time()
        try:
            return read(stream, buf)
        finally:
            held = max(held, time.process_time() - began)

    # A client that has lived: the first connection of a process imports and allocates things.
    client = Client("127.0.0.1", 9, auto_reconnect=False)
    with contextlib.suppress(KatcpError, OSError):
        await client.wait_connected()
    Stream.read_from_fd = timed_read  # type: ignore[method-assign, assignment]
    before = peak()
    client = Client("127.0.0.1", port, auto_reconnect=False)
    began = time.process_time()
    with contextlib.suppress(KatcpError, OSError):
        await client.wait_closed(TIMEOUT)
    return {
        "cpu": time.process_time() - began,
        "held": held,
        "peak": peak() - before,
        "bytes": client.stats.bytes_in,
        "cause": type(client.last_exc).__name__,
    }


@contextlib.contextmanager
def attacker(plan: Attack) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=attack, args=(listener, plan), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(TIMEOUT)


def measure(name: str, runs: int) -> list[str]:
    """The best of a few runs, as a row."""
    plan = ATTACKS[name]
    found = []
    for _ in range(runs):
        with attacker(plan) as port:
            command = [sys.executable, str(Path(__file__).resolve()), "--suffer", str(port)]
            done = subprocess.run(
                command, env=harness.environment("inner"), capture_output=True, check=True, text=True, timeout=TIMEOUT
            )
        found.append(json.loads(done.stdout))
    size = found[0]["bytes"]
    best = {key: min(each[key] for each in found) for key in ("cpu", "held", "peak")}
    return [
        plan.title + (", after the version" if plan.greeting else ""),
        f"{size / 1e6:.2f}",
        f"{best['cpu'] / size * 1e9:.0f}",
        f"{best['cpu'] * 1e3:.0f}",
        f"{best['held'] * 1e3:.1f}",
        f"{best['peak']:.1f}",
        found[0]["cause"],
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a hostile peer can cost.")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, metavar="ATTACK", help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--runs", type=int, default=3, help="of which the best counts (default: 3)")
    parser.add_argument("--suffer", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.suffer is not None:
        print(json.dumps(asyncio.run(suffer(args.suffer))))
        return 0
    harness.pin()
    rows = []
    for name in args.attacks or ATTACKS:
        harness.progress(name)
        rows.append(measure(name, max(1, args.runs)))
    harness.progress("")
    head = ["the peer sends", "MB taken", "CPU, ns/byte", "CPU, ms", "at a time, ms", "memory, MB", "the end"]
    print(harness.table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
