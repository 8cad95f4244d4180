"""A Tornado handler that serves metrics."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from tornado import web


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
        body = await asyncio.get_running_loop().run_in_executor(None, _encode, encoder, registry, compress)
        self.set_header("Content-Type", content_type)
        if compress:
            self.set_header("Content-Encoding", "gzip")
        self.finish(body)


def _encode(encoder: Callable[[Any], bytes], registry: Any, compress: bool) -> bytes:
    text = encoder(registry)
    return gzip.compress(text, 1) if compress else text
