"""A device that does by hand what was seen of some, and not recorded."""

from __future__ import annotations

from typing import Any

from katcp_tornado.testing import Behaviour, Connection, RequestContext

V5 = b"#version-connect katcp-protocol 5.0-M\n"
IDS = b"#version-connect katcp-protocol 5.0-IM\n"
V4 = b"#version a-1.0\n#build-state a-1.0.0\n"


class Script(Behaviour):
    """Greets with *banner*, and answers requests with the bytes that are given for their names; None hangs up.

    ``%s`` stands for the id of the request, if it has one. Requests that are not there get no answer.
    """

    def __init__(self, banner: Any = V5, **answers: Any) -> None:
        self.banner = banner
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}

    def greet(self, connection: Connection) -> None:
        connection.write(self.banner)

    def receive(self, context: RequestContext) -> None:
        message = context.message
        context.device.received.append((context.connection.number, message))
        answer = self.answers.get(message.name, b"")
        if answer is None:
            context.connection.close()
        else:
            context.connection.write(answer.replace(b"%s", b"" if message.mid is None else b"[%d]" % message.mid))
        context.device.changed()
