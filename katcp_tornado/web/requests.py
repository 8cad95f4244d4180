"""Requests that a page sends, if it may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import Client, Message
from ..errors import as_text, describe
from .device_feed import shorten

#: Requests of one page that may be in flight.
MOST_IN_FLIGHT = 8
#: Informs of one reply that a page is shown.
MOST_INFORMS = 1000
#: Seconds that a page waits for a reply.
TIMEOUT = 60.0


def parse(content: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Device, name and arguments of a request that a page has sent. Raises `ValueError` if it makes no sense."""
    device, name, arguments = content.get("device"), content.get("name"), content.get("arguments", [])
    if not isinstance(device, str) or not isinstance(name, str) or not isinstance(arguments, list):
        raise ValueError("a request has a device, a name and arguments")
    if not all(isinstance(argument, str) for argument in arguments):
        raise ValueError("an argument must be text")
    return device, name, arguments


async def ask(client: Client, name: str, arguments: list[str]) -> dict[str, Any]:
    """Send the request, once. Returns what the page is shown: the reply and the informs, or an error."""
    informs: list[list[str]] = []
    count = 0

    def heard(message: Message) -> None:
        nonlocal count
        count += 1
        if count <= MOST_INFORMS:
            informs.append(_shown(message))

    try:
        reply, _ = await client.request_raw(name, *arguments, timeout=TIMEOUT, on_inform=heard)
    except Exception as exc:
        return {"error": shorten(describe(exc)), "informs": informs, "left_out": max(0, count - MOST_INFORMS)}
    return {"reply": _shown(reply), "informs": informs, "left_out": max(0, count - MOST_INFORMS)}


def _shown(message: Message) -> list[str]:
    return [shorten(as_text(argument)) for argument in message.arguments]
