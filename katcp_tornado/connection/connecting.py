"""The Future of ``Client.connect``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from .waiters import Waiter

if TYPE_CHECKING:
    from ..client import Client

C = TypeVar("C", bound="Client")


class Connecting(Waiter[C]):
    """The Future of `Client.connect`: settled, or cancelled, together with its client."""

    __slots__ = ("_client",)

    def __init__(self, client: C, *args: Any) -> None:
        super().__init__(*args)
        self._client: Optional[C] = client

    def resolve(self, result: Any) -> None:
        client, self._client = self._client, None  # it is the caller's now
        super().resolve(client)

    def fail(self, exc: BaseException) -> None:
        super().fail(exc)
        self._close()  # in the same step: whoever waits wakes later

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self._close()
        return True

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def __aenter__(self) -> C:
        return await self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        client = self.result()
        client.close()
        await client.wait_closed()
