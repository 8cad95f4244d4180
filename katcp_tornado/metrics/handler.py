"""A Tornado handler that serves metrics."""

from __future__ import annotations

import asyncio
import zlib
from itertools import islice
from typing import Any, Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from tornado import web

#: So many samples are written at a time.
MANY = 5000
#: The end of a text of OpenMetrics.
EOF = b"# EOF\n"


class MetricsHandler(web.RequestHandler):
    """Serves a registry to Prometheus, in the text format or as OpenMetrics, as it asks for::

        ("/metrics", MetricsHandler, dict(registry=registry))

    The text is made in a thread, so that the loop goes on meanwhile. ``?name[]=`` restricts it to some metrics, as
    prometheus_client's own handler has it.
    """

    def initialize(self, registry: CollectorRegistry) -> None:
        """Keep the registry; Tornado calls this."""
        self.registry = registry

    async def get(self) -> None:
        """Answer a scrape."""
        names = self.get_arguments("name[]")
        registry: Any = self.registry.restricted_registry(names) if names else self.registry
        encoder, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        compress = "gzip" in self.request.headers.get("Accept-Encoding", "")
        pieces = await asyncio.get_running_loop().run_in_executor(None, _encode, encoder, registry, compress)
        self.set_header("Content-Type", content_type)
        if compress:
            self.set_header("Content-Encoding", "gzip")
        for piece in pieces:
            self.write(piece)
            try:
                await self.flush()
            except OSError:  # Prometheus has hung up, for want of patience
                return


class _Part:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


def _encode(encoder: Callable[[Any], bytes], registry: Any, compress: bool) -> list[bytes]:
    """The text of a registry, in pieces: to make it as one would hold the interpreter, and with it the loop."""
    pieces = []
    zipped = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16) if compress else None  # with a header of gzip
    end = b""
    for family in registry.collect():
        samples, begin = iter(family.samples), True
        while True:
            family.samples = list(islice(samples, MANY))
            if not family.samples and not begin:
                break
            text = encoder(_Part(family))
            if text.endswith(EOF):
                end, text = EOF, text[: -len(EOF)]
            while not begin and text.startswith(b"#"):  # the head of the family was in its first piece
                text = text.partition(b"\n")[2]
            begin = False
            pieces.append(text if zipped is None else zipped.compress(text))
    pieces.append(end if zipped is None else zipped.compress(end) + zipped.flush())
    return [piece for piece in pieces if piece]
