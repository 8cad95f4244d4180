"""The real servers: what is to be known of each, and how it is run.

They are processes of their own. katcp-python lives with Tornado 4 only, so it has a Python of its own too:
``tox -e katcp-python,peers`` makes it and uses it. Otherwise the environment variable ``KATCP_TORNADO_KATCP_PYTHON``
names it.
"""

from __future__ import annotations

import importlib.util
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from katcp_tornado import Address, ProtocolFlags

KATCP_PYTHON = "KATCP_TORNADO_KATCP_PYTHON"
START = 20.0  # seconds that a server may take to listen


class Peer(NamedTuple):
    """A kind of server, and what is to be known of it."""

    name: str
    command: tuple[Any, ...]
    protocol: ProtocolFlags
    versions: dict[Any, Any]  # some of the versions it sends
    longest: int  # bytes of a line that it takes, and that it sends
    sensors: dict[Any, Any]  # name -> type and value, of those that the others do not have
    lacks: dict[Any, Any]  # what it cannot do, for the marker `needs`: the reason
    missing: str = ""  # why it cannot be had

    def lack(self, what: Any) -> Any:
        if len(what) == 1:
            return "" if self.protocol.supports(what) else f"it has no flag {what}"
        return self.lacks.get(what, "")


def aiokatcp() -> Any:
    return Peer(
        "aiokatcp",
        (sys.executable, "aiokatcp_server.py"),
        ProtocolFlags(5, 1, frozenset("MIB")),
        {"katcp-device": ("aiokatcp-peer-1.0", "aiokatcp-peer-1.0.0-test")},
        5_000_000,
        {"bytes-sensor": ("string", b"\0\xff\xfe\x1b"), "address6-sensor": ("address", Address("::1", 7147))},
        {"restart": "it knows no ?restart"},
        "" if importlib.util.find_spec("aiokatcp") else "aiokatcp is not installed",
    )


def katcp_python(proto: Any, protocol: Any) -> Any:
    python = os.environ.get(KATCP_PYTHON, "")
    device = ("katcp-python-peer-1.0", "katcp-python-peer-1.0test")
    if not python:
        missing = f"{KATCP_PYTHON} does not name a Python that has katcp-python"
    else:
        missing = "" if os.path.exists(python) else f"there is no {python}, which {KATCP_PYTHON} names"
    return Peer(
        f"katcp-python-{proto}",
        (python, "katcp_python_server.py", "--proto", proto),
        protocol,
        {"version": device[:1], "build-state": device[1:]} if protocol.major == 4 else {"katcp-device": device},
        2_000_000,
        {"lru-sensor": ("lru", "nominal")},
        {
            "any-bytes": "a request that is not UTF-8 stops it for ever",
            "client-connected": "it does not tell clients of each other",
            **({"rates": "v4 has neither event-rate nor differential-rate"} if protocol.major == 4 else {}),
        },
        missing,
    )


PEERS = [
    aiokatcp(),
    katcp_python("v5", ProtocolFlags(5, 0, frozenset("MI"))),
    katcp_python("v51", ProtocolFlags(5, 1, frozenset("MITB"))),
    katcp_python("v5nomid", ProtocolFlags(5, 0, frozenset("M"))),
    katcp_python("v4", ProtocolFlags(4, 0)),
]


class Server:
    """A server in a process, which can be killed and started again on its port."""

    def __init__(self, peer: Any, *arguments: Any) -> None:
        python, script, *rest = peer.command
        self.command = [python, str(Path(__file__).with_name(script)), *rest, "--rate", "0", *arguments]
        self.port = 0
        self.start()

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [*self.command, str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        said = select.select([self.process.stdout], [], [], START)[0] and self.process.stdout.readline().split()  # type: ignore[type-var, union-attr]
        if not said:
            self.end()
            pytest.fail(f"the server does not start: {' '.join(self.command)}")
        self.port = int(said[-1])

    def signal(self, number: Any) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.communicate()
