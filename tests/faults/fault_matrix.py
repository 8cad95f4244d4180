"""The rows of the fault matrix, and how each is tested.

A row is tested by the functions whose names begin with its number: ``test_f01_...``. The documentation is made
from this table, and `test_fault_matrix` holds it against the tests.
"""

from __future__ import annotations

from typing import NamedTuple

#: The clock jumps; the sockets are real ones, on loopback.
VIRTUAL = "virtual time"
#: Real sockets and the ordinary clock.
REAL = "real sockets"
#: A network namespace whose loopback interface goes down. Skipped where that is not permitted.
NAMESPACE = "namespace"
#: Another process.
PROCESS = "process"


class Row(NamedTuple):
    """One fault."""

    fault: str
    expected: str
    tested: tuple[str, ...]


FAULTS: dict[str, Row] = {
    "F1": Row("connection refused", "tries again; ConnectionRefusedError", (VIRTUAL,)),
    "F2": Row("SYN black hole", "tries again at connect_timeout; no socket left in SYN-SENT", (VIRTUAL, REAL)),
    "F3": Row("network or host unreachable, interface down", "tries again", (VIRTUAL, NAMESPACE)),
    "F4": Row("bad label, unknown name, name server in trouble", "tries again", (REAL, VIRTUAL)),
    "F5": Row("look-up fails, then succeeds; its answer changes", "connects, to the new address", (VIRTUAL,)),
    "F6": Row("look-up hangs", "tries again at connect_timeout; at most one thread; close() at once", (VIRTUAL, REAL)),
    "F7": Row("port 0, 70000, not an int", "ValueError or TypeError in the constructor", (VIRTUAL,)),
    "F8": Row(
        "one of several addresses is a black hole; all refuse", "the next one after 0.25 s; all causes", (VIRTUAL,)
    ),
    "F9": Row("accepts, never speaks", "tries again at handshake_timeout", (VIRTUAL,)),
    "F10": Row("accepts, ends at once (FIN, RST)", "tries again, after growing delays", (VIRTUAL,)),
    "F11": Row("wrong, unreadable, repeated version; unknown flags", "ProtocolError; ignored; accepted", (VIRTUAL,)),
    "F12": Row("HTTP or SSH banner, random bytes", "never connected; tries again; memory bounded", (VIRTUAL,)),
    "F13": Row("endless line", "LineTooLong at the limit; tries again", (VIRTUAL,)),
    "F14": Row("one byte a second", "handshake_timeout; once connected, works", (VIRTUAL,)),
    "F15": Row("end of file within a message", "requests fail once; reconnects", (VIRTUAL,)),
    "F16": Row("reset within a message", "complete lines are delivered first; ECONNRESET", (VIRTUAL,)),
    "F17": Row("#disconnect", "DeviceDisconnected with its reason; reconnects", (VIRTUAL,)),
    "F18": Row("half-open link, idle", "noticed within 30 s", (REAL, NAMESPACE)),
    "F19": Row("half-open link, data under way", "noticed within 30 s; requests fail", (REAL, NAMESPACE)),
    "F20": Row("the device hangs", "noticed by the watchdog, not without it", (VIRTUAL, PROCESS)),
    "F21": Row("the device does not read", "WriteBufferFull; close() at once", (VIRTUAL, REAL)),
    "F22": Row("flapping device", "at most 60 attempts in 600 s; every callback in pairs", (VIRTUAL,)),
    "F23": Row("restart of a device with 1000 clients", "spread out; all back within 35 s", (VIRTUAL, PROCESS)),
    "F24": Row("long outage, 10000 attempts", "tries on; a log line a minute; nothing grows", (VIRTUAL,)),
    "F25": Row("the link is lost during restoration", "begun anew on the next link; nothing twice", (VIRTUAL,)),
    "F26": Row("a strategy is refused", "reported, not synced; the others applied; tried again", (VIRTUAL,)),
    "F27": Row("the loop is held up", "what has come meanwhile counts", (VIRTUAL, PROCESS)),
    "F28": Row("the wall clock jumps by a day", "no effect", (VIRTUAL,)),
    "F29": Row("no descriptors, buffers or ports left", "tries on, says so, recovers", (VIRTUAL, PROCESS, NAMESPACE)),
    "F30": Row("callbacks that raise, never end, close, mutate lists", "isolated", (VIRTUAL,)),
    "F31": Row("close() in each state and each callback", "everything settles at once", (VIRTUAL,)),
    "F32": Row("the loop is closed, the client collected", "ResourceWarning only; sockets closed", (VIRTUAL,)),
    "F33": Row("whoever waits is cancelled", "nothing left; other waiters unaffected", (VIRTUAL,)),
    "F34": Row("requests while down, in flight, queued", "fail at once, and say whether they were sent", (VIRTUAL,)),
    "F35": Row("late reply without message ids", "discarded", (VIRTUAL,)),
    "F36": Row("late events of an earlier connection", "ignored", (VIRTUAL,)),
    "F37": Row("any of these without auto_reconnect", "one attempt; its cause is raised; CLOSED", (VIRTUAL,)),
    "F38": Row("slow line, small pieces", "works", (VIRTUAL,)),
    "F39": Row("two connections at once; a NAT forgets the link", "one live connection", (REAL, VIRTUAL)),
    "F40": Row("retry_now() in each state, 1000 times", "ends the sleep; attempts keep their distance", (VIRTUAL,)),
    "F41": Row("storm: a burst of announcements", "one round, and one more; nothing told twice", (VIRTUAL,)),
    "F42": Row("restless: an announcement at each question", "brake, 0.1 s to 5 s; all else goes on", (VIRTUAL,)),
    "F43": Row("threads call while one closes, or its thread is ended", "each call ends: ClientClosed", (REAL,)),
    "F44": Row("KeyboardInterrupt out of any callback", "passes after the step is complete", (VIRTUAL,)),
    "F45": Row("fork with a client", "the child is told at once; the parent hears all", (REAL, PROCESS)),
    "F46": Row("close, request, raise from a logging handler", "as from a listener", (VIRTUAL,)),
    "F47": Row(
        "TLS: renegotiation, key updates, a silent peer, one that does not read",
        "the loop is not kept busy; deadlines as without TLS",
        (VIRTUAL,),
    ),
    "F48": Row("16 MB of non-ASCII in one line", "no turn over 100 ms; errors and log lines of 1 KiB", (VIRTUAL,)),
    "F49": Row("200 clients of one loop flooded, or lost, at once", "no turn of the loop over 30 ms", (REAL,)),
    "F50": Row("replies in pieces, the next after our acknowledgement", "acknowledged at once", (REAL,)),
}
