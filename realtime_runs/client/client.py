"""The client, and what it is made of."""

from types import TracebackType
from typing import Self

from realtime_runs.client.batch import Batches
from realtime_runs.client.runs import Runs
from realtime_runs.client.streams import Streams
from realtime_runs.client.tasks import Tasks
from realtime_runs.client.transport import Refresh, Transport
from realtime_runs.client.wait import Wait


class Client:
    """A connection to one server. May be used by several threads and event loops; close it at the end, or use `with`.

    `base_url`: where `realtime_runs.urls` is included. `access_token`: a secret key or a public token.
    `refresh_access_token`: a function, sync or async, that gives a new one when the server says 401. `timeout`: seconds
    for one request; following has none.
    """

    def __init__(
        self,
        base_url: str,
        access_token: str,
        *,
        refresh_access_token: Refresh | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._transport = Transport(base_url, access_token, refresh_access_token, timeout)
        self.tasks = Tasks(self._transport)
        self.runs = Runs(self._transport)
        self.batch = Batches(self._transport)
        self.streams = Streams(self._transport)
        self.wait = Wait(self._transport)

    def close(self) -> None:
        """Close the connections of the sync functions."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close those of this event loop."""
        await self._transport.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
