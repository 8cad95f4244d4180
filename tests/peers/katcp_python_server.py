"""A real third-party KATCP server, katcp-python's, for the tests beside it. Runs as a process of its own.

usage: katcp_python_server.py PORT --proto {v5,v51,v5nomid,v4} [--rate HZ] [--many N]

It listens on 127.0.0.1; with 0 for PORT it chooses one. It writes a line that ends in the port as soon as it listens,
stops on SIGTERM, and needs `pip install katcp==0.9.3` on Python 3.8 or 3.9 but nothing of this library.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import socket
import struct
import time
from concurrent.futures import Future
from typing import Any

import katcp
from katcp import AsyncReply, DeviceServer, Message, Sensor
from katcp.core import FailReply, ProtocolFlags
from katcp.kattypes import Float, request, request_timeout_hint, return_reply

PROTOCOLS = {
    "v5": ProtocolFlags(5, 0, [ProtocolFlags.MULTI_CLIENT, ProtocolFlags.MESSAGE_IDS]),
    "v51": ProtocolFlags(
        5,
        1,
        [
            ProtocolFlags.MULTI_CLIENT,
            ProtocolFlags.MESSAGE_IDS,
            ProtocolFlags.REQUEST_TIMEOUT_HINTS,
            ProtocolFlags.BULK_SET_SENSOR_SAMPLING,
        ],
    ),
    "v5nomid": ProtocolFlags(5, 0, [ProtocolFlags.MULTI_CLIENT]),
    "v4": ProtocolFlags(4, 0, [ProtocolFlags.MULTI_CLIENT]),
}

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--proto", choices=sorted(PROTOCOLS), required=True)
parser.add_argument("--rate", type=float, default=1.0)
parser.add_argument("--many", type=int, default=0)
options = parser.parse_args()


class PeerServer(DeviceServer):
    # The metaclass looks at it when the class is made, and leaves out the requests that such a device does not have.
    PROTOCOL_INFO = PROTOCOLS[options.proto]
    VERSION_INFO = ("katcp-python-peer", 1, 0)
    BUILD_INFO = ("katcp-python-peer", 1, 0, "test")

    def setup_sensors(self) -> None:
        self.held: list[Any] = []
        self.rate = options.rate
        nominal = Sensor.NOMINAL
        modes = ["idle", "capture-init", "error"]
        counter = "that changes at the configured rate"
        self.ticker = Sensor.integer("ticker", f"Counter {counter}", "", None, 0, nominal)
        self.ticker_float = Sensor.float("ticker-float", f"Float {counter}", "", None, 0.0, nominal)
        for sensor in [
            Sensor.integer("int-sensor", "An integer sensor", "count", [-100, 100], 7, nominal),
            Sensor.float("float-sensor", "A float sensor", "V", [-5.0, 5.0], 2.5, Sensor.WARN),
            Sensor.boolean("bool-sensor", "A boolean sensor", "", True, nominal),
            Sensor.string("string-sensor", "A string sensor with spaces\tand tab", "", "hello world", nominal),
            Sensor.discrete("discrete-sensor", "A discrete sensor", "", modes, "capture-init", nominal),
            Sensor.address("address-sensor", "An address sensor", "", ("127.0.0.1", 7147), nominal),
            Sensor.timestamp("timestamp-sensor", "A timestamp sensor", "", 1234567890.25, nominal),
            Sensor.lru("lru-sensor", "An LRU sensor", "", Sensor.LRU_NOMINAL, nominal),
            Sensor.string("empty-string", "An empty string", "", "", Sensor.UNKNOWN),
            Sensor.float("error-sensor", "status error", "", None, -1.0, Sensor.ERROR),
            Sensor.float("failure-sensor", "status failure", "", None, float("nan"), Sensor.FAILURE),
            Sensor.integer("unreachable-sensor", "status unreachable", "", None, 0, Sensor.UNREACHABLE),
            Sensor.integer("inactive-sensor", "status inactive", "", None, 0, Sensor.INACTIVE),
            Sensor.integer("sub.with.dots", "nested name", "", None, 1, nominal),
            self.ticker,
            self.ticker_float,
            *(Sensor.integer(f"many-{i:05d}", f"bulk sensor {i}", "", None, i, nominal) for i in range(options.many)),
        ]:
            self.add_sensor(sensor)

    def tick(self) -> None:
        value = self.ticker.value() + 1
        self.ticker.set_value(value)
        self.ticker_float.set_value(value / 4.0)

    def request_echo(self, req: Any, msg: Any) -> Any:
        """Return the arguments: ?echo [arg ...]"""
        return req.make_reply("ok", *msg.arguments)

    def request_mid(self, req: Any, msg: Any) -> Any:
        """Reply with the id of the request"""
        return req.make_reply("ok", msg.mid or b"")

    @request(Float(), Float())
    @return_reply(Float())
    def request_add(self, req: Any, a: Any, b: Any) -> Any:
        """Add two numbers: ?add a b"""
        return ("ok", a + b)

    def request_fail(self, req: Any, msg: Any) -> Any:
        """Always fail: ?fail [message]"""
        return req.make_reply("fail", *(msg.arguments or ["deliberate failure"]))

    def request_raise(self, req: Any, msg: Any) -> None:
        """Raise an unhandled exception (reply carries a traceback)"""
        raise RuntimeError("deliberate exception")

    @request_timeout_hint(0.1)
    def request_hold(self, req: Any, msg: Any) -> Any:
        """Send the arguments as an inform, and reply with them at the next ?release"""
        req.inform(*msg.arguments)
        future: Any = Future()
        self.held.append((future, req.make_reply("ok", *msg.arguments)))
        return future

    request_hold._concurrent_reply = True  # other requests need not wait

    def request_release(self, req: Any, msg: Any) -> Any:
        """Let the requests go that ?hold holds"""
        held, self.held = self.held, []
        for future, reply in held:
            self.ioloop.add_callback(future.set_result, reply)
        return req.make_reply("ok")

    def request_block(self, req: Any, msg: Any) -> Any:
        """Block the thread of ALL requests (no watchdog answered meanwhile): ?block seconds"""
        time.sleep(float(msg.arguments[0]))
        return req.make_reply("ok")

    def request_informs(self, req: Any, msg: Any) -> Any:
        """Send n synchronous informs then ok n: ?informs n"""
        n = int(msg.arguments[0])
        for i in range(n):
            req.inform(str(i), f"payload {i}")
        return req.make_reply("ok", str(n))

    def request_big(self, req: Any, msg: Any) -> Any:
        """Reply with one argument of nbytes bytes"""
        return req.make_reply("ok", b"x" * int(msg.arguments[0]))

    def request_bytes(self, req: Any, msg: Any) -> Any:
        """Reply with one argument holding all 256 byte values"""
        return req.make_reply("ok", bytes(range(256)))

    def request_no_args_reply(self, req: Any, msg: Any) -> Any:
        """Reply ok without arguments"""
        return req.make_reply("ok")

    def request_ticker_rate(self, req: Any, msg: Any) -> Any:
        """Set the rate at which the ticker sensors change (0 stops)"""
        self.rate = float(msg.arguments[0])
        return req.make_reply("ok", msg.arguments[0])

    def request_burst(self, req: Any, msg: Any) -> Any:
        """Change the ticker n times at once"""
        for _ in range(int(msg.arguments[0])):
            self.tick()
        return req.make_reply("ok", msg.arguments[0])

    def request_set_sensor(self, req: Any, msg: Any) -> Any:
        """Set a sensor: ?set-sensor name value [status]"""
        name, value, status = [*msg.arguments, b"nominal"][:3]
        sensor = self.get_sensor(name.decode())
        value = sensor.parse_value(value, self.PROTOCOL_INFO.major)
        sensor.set(time.time(), Sensor.STATUS_NAMES_RAW[status], value)
        return req.make_reply("ok")

    def request_add_sensor(self, req: Any, msg: Any) -> Any:
        """Add a sensor, mass-inform #interface-changed: ?add-sensor name [type]"""
        name, type_ = [*msg.arguments, b"integer"][:2]
        sensor = Sensor(Sensor.parse_type(type_.decode()), name.decode(), f"dynamic sensor {name.decode()}", "")
        if type_ == b"integer":
            sensor.set_value(0)
        self.add_sensor(sensor)
        self.sensors_changed()
        return req.make_reply("ok")

    def request_remove_sensor(self, req: Any, msg: Any) -> Any:
        """Remove a sensor, mass-inform #interface-changed: ?remove-sensor name"""
        name = msg.arguments[0].decode()
        if not self.has_sensor(name):
            raise FailReply("no such sensor")
        self.remove_sensor(name)
        self.sensors_changed()
        return req.make_reply("ok")

    def sensors_changed(self) -> None:
        if self.PROTOCOL_INFO.major >= 5:
            self.mass_inform(Message.inform("interface-changed", "sensor-list"))
        else:
            self.mass_inform(Message.inform("device-changed"))

    def request_inform_all(self, req: Any, msg: Any) -> Any:
        """mass_inform(name, *args): e.g. ?inform-all interface-changed"""
        self.mass_inform(Message.inform(msg.arguments[0].decode(), *msg.arguments[1:]))
        return req.make_reply("ok")

    def request_log_now(self, req: Any, msg: Any) -> Any:
        """Emit a KATCP log message: ?log-now [level [msg]]"""
        level, text = [*msg.arguments, *[b"warn", b"a log message"][len(msg.arguments) :]]
        getattr(self.log, level.decode())("%s", text.decode())
        return req.make_reply("ok")

    def request_disconnect_me(self, req: Any, msg: Any) -> None:
        """?disconnect-me [inform|close|abort|noreply]

        inform: !ok, #disconnect reason, close; close: !ok then FIN, no #disconnect;
        abort: RST with no reply at all; noreply: FIN with no reply at all.
        """
        how = msg.arguments[0] if msg.arguments else b"inform"
        connection = req.client_connection
        stream = connection._conn_key
        if how == b"abort":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how != b"noreply":
            req.reply("ok")
        if how == b"inform":
            self.ioloop.add_callback(connection.disconnect, "you asked for it")
        else:
            self.ioloop.add_callback(stream.close)
        raise AsyncReply

    def request_raw(self, req: Any, msg: Any) -> Any:
        """Write arbitrary raw bytes to this connection before the reply"""
        self.ioloop.add_callback(req.client_connection._conn_key.write, msg.arguments[0])
        return req.make_reply("ok")

    def request_split(self, req: Any, msg: Any) -> None:
        """Reply delivered in two TCP segments with a delay in the middle of the line: ?split delay"""
        line = bytes(req.make_reply("ok", "split in two")) + b"\n"
        stream = req.client_connection._conn_key
        self.ioloop.add_callback(stream.write, line[:8])
        self.ioloop.add_callback(self.ioloop.call_later, float(msg.arguments[0]), stream.write, line[8:])
        raise AsyncReply

    def request_kill(self, req: Any, msg: Any) -> None:
        """os._exit: the whole server dies at once, no #disconnect"""
        os._exit(1)


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    server = PeerServer("127.0.0.1", options.port)
    restarts: Any = queue.Queue()
    server.set_restart_queue(restarts)
    server.start(5)
    print("katcp-python", katcp.__version__, "listening on", server.bind_address[1], flush=True)  # noqa: T201
    while server.running() and not stopping:
        if not restarts.empty():
            restarts.get().stop()
            server.join(5)
            server.start(5)
        time.sleep(min(0.05, 1 / server.rate) if server.rate else 0.05)
        if server.rate:
            server.tick()
    if server.running():
        server.stop()
    server.join(5)


if __name__ == "__main__":
    main()
