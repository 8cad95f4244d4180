"""Log of a client: its lines, rate-limited.

One WARNING when an outage begins, at most a line a minute while it lasts, INFO with its length when it is over;
each single failure at DEBUG. The link of a device that flaps is reported as up once a minute at most, and until then
that is one long outage. What the network or the device did is a line, never a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from typing import Any, Optional

from ..errors import as_text, describe, one_line, quoted, shorten
from ..transport.timers import Timer
from ..wire.codec import RawMessage
from ..wire.message import Message, excerpt
from ..wire.version import ProtocolFlags

logger = logging.getLogger("katcp_tornado")

#: Seconds between two lines about the same trouble.
QUIET = 60.0


def write(level: int, text: str, *args: object, error: Optional[BaseException] = None) -> None:
    """Write a line to the log. What a handler raises is printed, as the handlers of `logging` themselves do."""
    try:
        logger.log(level, text, *args, exc_info=error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        if logging.raiseExceptions and sys.stderr:
            traceback.print_exc()


class ConnectionLog:
    """The log of one client.

    A logging handler is foreign code: it may close the client, or raise. So a line is never written in the middle of a
    step. What is logged of the state is an event, told before its callbacks (`lost`, `connected`); every other line is
    written in the next turn of the loop.
    """

    __slots__ = ("_failures", "_last", "_late", "_loop", "_name", "_outage", "_recovered", "_suppressed", "_told_up")

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._outage: Optional[float] = None  # when it began
        self._failures = 0  # in this outage
        self._recovered = 0.0  # when it ended
        self._told_up = True  # whether the log's last word is that there is no outage
        self._late = Timer(loop, self._tell_up)
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def lost(self, cause: BaseException, *, connected: bool, delay: Optional[float]) -> None:
        """A link was lost, or an attempt failed; the next one begins after *delay*, or never."""
        now = self._loop.time()
        self._late.cancel()
        if self._outage is None or self._told_up:
            self._outage = now
            self._failures = 0
        if not connected:
            self._failures += 1
        what = "the link was lost" if connected else "could not connect"
        then = "giving up" if delay is None else f"next attempt in {delay:.1f} s"
        if self._told_up or delay is None:
            self._told_up = False
            self._last["outage"] = now
            # The one attempt of a client that makes no other: its error is raised to whoever waits for it.
            only = delay is None and not connected and self._failures == 1
            level = logging.INFO if only else logging.WARNING
            write(level, "%s: %s: %s; %s", self._name, what, describe(cause), then)
        elif self._due("outage"):
            write(
                logging.INFO,
                "%s: still out after %.0f s and %d failed attempts: %s: %s; %s",
                *(self._name, now - self._outage, self._failures, what, describe(cause), then),
            )
        else:
            write(logging.DEBUG, "%s: %s: %s; %s", self._name, what, describe(cause), then)

    def connected(self, protocol: ProtocolFlags) -> None:
        """A link is up."""
        self._recovered = self._loop.time()
        if self._outage is None:
            write(logging.INFO, "%s: connected, KATCP %s", self._name, protocol)
        elif self._due("recovery"):
            self._tell_up()
        else:  # it has been up and down within a minute: wait and see
            self._late.start_at(self._last["recovery"] + QUIET)

    def _tell_up(self) -> None:
        assert self._outage is not None
        self._told_up = True
        self._last["recovery"] = self._loop.time()
        length = self._recovered - self._outage
        write(
            logging.INFO, "%s: connected again after %.1f s and %d failed attempts", self._name, length, self._failures
        )

    def closed(self) -> None:
        """The client is CLOSED: nothing more will be said."""
        self._late.close()

    def malformed(self, error: ValueError) -> None:
        """A line came that is no message."""
        self._limited("malformed", logging.WARNING, "a line from the device is not a KATCP message: %s", error)

    def misfit(self, raw: RawMessage, callback: object, error: Exception) -> None:
        """The arguments of an inform are not what a callback is annotated for."""
        name = raw.name.decode("ascii")
        text = "#%s does not fit its callback %s: %s: %s"
        args = (name, quoted(callback), shorten(str(error)), excerpt(raw))
        self._limited(f"misfit #{name}", logging.WARNING, text, *args)

    def nonsense(self, message: Message, error: Exception) -> None:
        """An inform came whose arguments are not what they should be."""
        self._limited(
            f"nonsense #{message.name}",
            logging.WARNING,
            "#%s: %s: %s",
            message.name,
            shorten(str(error)),
            excerpt(message.raw),
        )

    def refused(self, what: str, error: BaseException) -> None:
        """The device does not do something that is wanted for as long as it takes."""
        self._limited("refused", logging.WARNING, "%s: %s; to be tried again", what, describe(error))

    def odd_value(self, sensor: str, raw: bytes) -> None:
        """A discrete sensor has a value that is not in its list."""
        text = "%s: sensor %s: %s is not one of its values"
        self._later(logging.WARNING, text, self._name, one_line(sensor), quoted(as_text(raw)))

    def unknown(self, raw: RawMessage) -> None:
        """A message came that nobody wants."""
        if logger.isEnabledFor(logging.DEBUG):
            self._limited("unknown", logging.DEBUG, "nobody wants %s", excerpt(raw))

    def _later(self, level: int, text: str, *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(write, level, text, *args)

    def _limited(self, kind: str, level: int, text: str, *args: Any) -> None:
        if self._due(kind):
            more = self._suppressed.pop(kind, 0)
            suffix = f" (and {more} more since the last such line)" if more else ""
            self._later(level, "%s: %s%s", self._name, one_line(text % args), suffix)
        else:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1

    def _due(self, kind: str) -> bool:
        """True if the last line of this kind is long ago; if so, there is to be one now."""
        now = self._loop.time()
        last = self._last.get(kind)
        if last is not None and now - last < QUIET:
            return False
        self._last[kind] = now
        return True
