"""``katcp-tornado request``: one request to a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import Client, ConnectionLost, NotConnected, RequestTimeout, State
from ..errors import describe
from .terminal import ExitCode, Output, complain

if TYPE_CHECKING:
    from .commands import HostPort


async def ask(address: HostPort, name: str, arguments: Sequence[bytes], timeout: float, output: Output) -> ExitCode:
    """Send the request, once, and write what comes back.

    :arg timeout: one deadline for everything, in seconds.
    """
    async with Client(
        address.host,
        address.port,
        auto_reconnect=False,
        connect_timeout=None,  # the request's deadline is the only one
        handshake_timeout=None,
    ) as client:
        try:
            reply, _ = await client.request_raw(
                name,
                *arguments,
                timeout=timeout,
                wait_connected=True,
                on_inform=lambda inform: output.line(str(inform)),
            )
        except NotConnected as exc:
            complain(f"{address}: no connection: {describe(exc.__cause__)}")
            return ExitCode.NO_CONNECTION
        except ConnectionLost as exc:
            complain(f"{address}: {exc} ({describe(exc.__cause__)})")
            return ExitCode.NO_CONNECTION
        except RequestTimeout:
            complain(f"{address}: {_missing(client, name)} within {timeout:g} s")
            return ExitCode.TIMEOUT
    output.line(str(reply))
    return ExitCode.OK if reply.reply_ok() else ExitCode.REFUSED


def _missing(client: Client, name: str) -> str:
    """What has not come in time."""
    if client.state is State.CONNECTING:
        return "no connection"
    if client.state is State.NEGOTIATING:
        return "connected, but the device has not sent its protocol version"
    malformed = client.stats.malformed
    rubbish = f" ({malformed} lines came that are no KATCP messages)" if malformed else ""
    return f"?{name} was sent, and may have been executed, but no reply came{rubbish}"
