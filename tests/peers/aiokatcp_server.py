"""A real third-party KATCP 5.1 server, aiokatcp's, for the tests beside it. Runs as a process of its own.

usage: aiokatcp_server.py PORT [--rate HZ] [--many N] [--limit BYTES]

It listens on 127.0.0.1; with 0 for PORT it chooses one. It writes a line that ends in the port as soon as it listens,
stops on SIGTERM, and needs `pip install aiokatcp` but nothing of this library.
"""

import argparse
import asyncio
import enum
import ipaddress
import logging
import os
import signal
import socket
import struct
import time
from typing import Any

import aiokatcp
from aiokatcp import Address, DeviceServer, FailReply, Message, Sensor, Timestamp  # type: ignore[attr-defined]


class Mode(enum.Enum):
    IDLE = 0
    CAPTURE_INIT = 1  # wire: capture-init
    ERROR = 2


TYPES = {
    "int": int,
    "integer": int,
    "float": float,
    "bool": bool,
    "boolean": bool,
    "str": str,
    "string": str,
    "discrete": Mode,
    "address": Address,
    "timestamp": Timestamp,
    "bytes": bytes,
}


class PeerServer(DeviceServer):
    VERSION = "aiokatcp-peer-1.0"
    BUILD_STATE = "aiokatcp-peer-1.0.0-test"

    def __init__(self, host: Any, port: Any, rate: float = 1.0, many: int = 0, **kw: Any) -> None:
        super().__init__(host, port, **kw)
        status = Sensor.Status
        ip4, ip6 = (Address(ipaddress.ip_address(ip), 7147) for ip in ("127.0.0.1", "::1"))
        for arguments in [
            (int, "int-sensor", "An integer sensor", "count", 7, status.NOMINAL),
            (float, "float-sensor", "A float sensor", "V", 2.5, status.WARN),
            (bool, "bool-sensor", "A boolean sensor", "", True, status.NOMINAL),
            (str, "string-sensor", "A string sensor with spaces\tand tab", "", "hello world", status.NOMINAL),
            (Mode, "discrete-sensor", "A discrete sensor", "", Mode.CAPTURE_INIT, status.NOMINAL),
            (Address, "address-sensor", "An address sensor", "", ip4, status.NOMINAL),
            (Address, "address6-sensor", "An IPv6 address sensor", "", ip6, status.NOMINAL),
            (Timestamp, "timestamp-sensor", "A timestamp sensor", "", Timestamp(1234567890.25), status.NOMINAL),
            (bytes, "bytes-sensor", "A bytes sensor (not UTF-8)", "", b"\x00\xff\xfe\x1b", status.NOMINAL),
            (str, "empty-string", "An empty string", "", "", status.UNKNOWN),
            (float, "error-sensor", "status error", "", -1.0, status.ERROR),
            (float, "failure-sensor", "status failure", "", float("nan"), status.FAILURE),
            (int, "unreachable-sensor", "status unreachable", "", 0, status.UNREACHABLE),
            (int, "inactive-sensor", "status inactive", "", 0, status.INACTIVE),
            (int, "sub.with.dots", "nested name", "", 1, status.NOMINAL),
            (int, "ticker", "Counter that changes at the configured rate", "", 0, status.NOMINAL),
            (float, "ticker-float", "Float that changes at the configured rate", "", 0.0, status.NOMINAL),
        ]:
            self.sensors.add(Sensor(*arguments))
        for i in range(many):
            self.sensors.add(Sensor(int, f"many-{i:05d}", f"bulk sensor {i}", "", i, status.NOMINAL))
        self.rate = rate
        self._rate_changed = asyncio.Event()
        self._released = asyncio.Event()

    async def run_ticker(self) -> None:
        while True:
            if self.rate <= 0:
                self._rate_changed.clear()
                await self._rate_changed.wait()
                continue
            self._rate_changed.clear()
            try:
                await asyncio.wait_for(self._rate_changed.wait(), 1.0 / self.rate)
            except asyncio.TimeoutError:
                pass
            self.tick()

    def tick(self) -> None:
        value = self.sensors["ticker"].value + 1
        self.sensors["ticker"].value = value
        self.sensors["ticker-float"].value = value / 4.0

    async def request_echo(self, ctx: Any, *args: bytes) -> tuple[Any, ...]:
        """Return the arguments: ?echo [arg ...]"""
        return tuple(args)

    async def request_mid(self, ctx: Any) -> bytes:
        """Reply with the id of the request"""
        return b"" if ctx.req.mid is None else b"%d" % ctx.req.mid

    async def request_add(self, ctx: Any, a: float, b: float) -> float:
        """Add two numbers: ?add a b"""
        return a + b

    async def request_fail(self, ctx: Any, msg: str = "deliberate failure") -> None:
        """Always fail: ?fail [message]"""
        raise FailReply(msg)

    async def request_raise(self, ctx: Any) -> None:
        """Raise an unhandled exception (reply carries a traceback)"""
        raise RuntimeError("deliberate exception")

    async def request_hold(self, ctx: Any, *args: bytes) -> tuple[Any, ...]:
        """Send the arguments as an inform, and reply with them at the next ?release"""
        ctx.inform(*args)
        await self._released.wait()
        return args

    async def request_release(self, ctx: Any) -> None:
        """Let the requests go that ?hold holds"""
        self._released.set()
        self._released.clear()

    async def request_block(self, ctx: Any, seconds: float) -> None:
        """Block the WHOLE server (no watchdog answered meanwhile): ?block seconds"""
        time.sleep(seconds)  # noqa: ASYNC251

    async def request_informs(self, ctx: Any, n: int) -> int:
        """Send n synchronous informs then ok n: ?informs n"""
        for i in range(n):
            ctx.inform(i, f"payload {i}")
        return n

    async def request_big(self, ctx: Any, nbytes: int) -> bytes:
        """Reply with one argument of nbytes bytes"""
        return b"x" * nbytes

    async def request_bytes(self, ctx: Any) -> bytes:
        """Reply with one argument holding all 256 byte values"""
        return bytes(range(256))

    async def request_no_args_reply(self, ctx: Any) -> None:
        """Reply ok without arguments"""

    async def request_ticker_rate(self, ctx: Any, hz: float) -> float:
        """Set the rate at which the ticker sensors change (0 stops)"""
        self.rate = hz
        self._rate_changed.set()
        return hz

    async def request_burst(self, ctx: Any, n: int) -> int:
        """Change the ticker n times at once"""
        for _ in range(n):
            self.tick()
        return n

    async def request_set_sensor(self, ctx: Any, name: str, value: bytes, status: str = "nominal") -> None:
        """Set a sensor: ?set-sensor name value [status]"""
        try:
            sensor = self.sensors[name]
        except KeyError:
            raise FailReply(f"no sensor {name}") from None
        sensor.set_value(aiokatcp.decode(sensor.stype, value), Sensor.Status[status.upper()])  # type: ignore[attr-defined]

    async def request_add_sensor(self, ctx: Any, name: str, type_: str = "int", notify: bool = True) -> None:
        """Add a sensor, mass-inform #interface-changed: ?add-sensor name [type [notify]]"""
        if type_ not in TYPES:
            raise FailReply("unknown type")
        stype = TYPES[type_]
        default = Address(ipaddress.ip_address("127.0.0.1"), 1) if stype is Address else None
        self.sensors.add(Sensor(stype, name, f"dynamic sensor {name}", "", default, Sensor.Status.NOMINAL))
        if notify:
            self.mass_inform("interface-changed", "sensor-list")

    async def request_remove_sensor(self, ctx: Any, name: str, notify: bool = True) -> None:
        """Remove a sensor, mass-inform #interface-changed: ?remove-sensor name [notify]"""
        if name not in self.sensors:
            raise FailReply("no such sensor")
        del self.sensors[name]
        if notify:
            self.mass_inform("interface-changed", "sensor-list")

    async def request_inform_all(self, ctx: Any, name: str, *args: bytes) -> None:
        """mass_inform(name, *args): e.g. ?inform-all interface-changed"""
        self.mass_inform(name, *args)

    async def request_log_now(self, ctx: Any, level: str = "warn", msg: str = "a log message") -> None:
        """Emit a python log record on logger 'peer' at level"""
        name = {"warn": "warning", "fatal": "critical"}.get(level, level)
        logging.getLogger("peer").log(getattr(logging, name.upper()), "%s", msg)

    async def request_disconnect_me(self, ctx: Any, how: str = "inform") -> None:
        """?disconnect-me [inform|close|abort|noreply]

        inform: !ok, #disconnect reason, close; close: !ok then FIN, no #disconnect;
        abort: RST with no reply at all; noreply: FIN with no reply at all.
        """
        if how == "abort":
            plug = ctx.conn._transport.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how != "noreply":
            ctx.reply("ok")
        if how == "inform":
            ctx.conn.write_message(Message.inform("disconnect", "you asked for it"))
        ctx.conn.close()

    async def request_raw(self, ctx: Any, data: bytes) -> None:
        """Write arbitrary raw bytes to this connection before the reply"""
        ctx.conn._transport.write(data)

    async def request_split(self, ctx: Any, delay: float) -> None:
        """Reply delivered in two TCP segments with a delay in the middle of the line: ?split delay"""
        msg = bytes(Message.reply_to_request(ctx.req, "ok", "split in two"))
        ctx._replied = True
        ctx.conn._transport.write(msg[:8])
        await asyncio.sleep(delay)
        ctx.conn._transport.write(msg[8:])

    async def request_kill(self, ctx: Any) -> None:
        """os._exit: the whole server dies at once, no #disconnect"""
        os._exit(1)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("peer").setLevel(logging.DEBUG)
    kw = {} if args.limit is None else {"limit": args.limit}
    server = PeerServer("127.0.0.1", args.port, rate=args.rate, many=args.many, **kw)
    logging.getLogger("peer").addHandler(DeviceServer.LogHandler(server))
    await server.start()
    loop = asyncio.get_running_loop()
    server.add_service_task(loop.create_task(server.run_ticker()))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.halt)
    port = server.sockets[0].getsockname()[1]
    print("aiokatcp", aiokatcp.__version__, "listening on", port, flush=True)  # type: ignore[attr-defined]  # noqa: T201
    await server.join()


asyncio.run(main())
