"""The two clients: one that waits, one for asyncio."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Self

import httpx

from counterfoil_client.operations import AsyncOperations, Operations
from counterfoil_client.transport import AsyncTransport, Options, Transport

URL = "http://127.0.0.1:8080"
TIMEOUT = 30.0
ATTEMPTS = 5


class Counterfoil(Operations):
    """One workspace, as one API key sees it; safe to share between threads.

    ```python
    with Counterfoil(api_key=key) as counterfoil:
        person = counterfoil.persons.lookup_person(type="email", value="ada@example.com")
    ```
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Connect at the first call. `timeout` is in seconds for each attempt, of which there are at most `attempts`.

        `verify` is a context that knows the server's authority where that is one of your own.
        """
        self._http = httpx.Client(verify=verify)
        super().__init__(Transport(Options(url.rstrip("/"), api_key, timeout, attempts), self._http))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCounterfoil(AsyncOperations):
    """The same for asyncio; its methods are awaited, its lists are `async for`."""

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Connect at the first call; the arguments are those of `Counterfoil`."""
        self._http = httpx.AsyncClient(verify=verify)
        super().__init__(AsyncTransport(Options(url.rstrip("/"), api_key, timeout, attempts), self._http))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
