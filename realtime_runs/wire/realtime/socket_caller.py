"""Who is at the other end of a socket, and what they may do, for as long as it is open."""

from collections.abc import Callable
from typing import Any, Final

from realtime_runs.access.principals import Principal, SiteUser, from_credential
from realtime_runs.access.rules import Need
from realtime_runs.exceptions import Forbidden, RunNotFound
from realtime_runs.models import Run
from realtime_runs.wire.closing import CloseCode, SocketClosed
from realtime_runs.wire.realtime.base import threads
from realtime_runs.wire.realtime.lookup import find_run
from realtime_runs.wire.sessions import principal_of_socket

_BEARER: Final = "bearer."


class Caller:
    """`principal` may be another one after `refresh` or `renew`, never somebody else."""

    principal: Principal

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        given = [offer for offer in scope.get("subprotocols", ()) if offer.startswith(_BEARER)]
        # Of two, none: an empty one is nobody's.
        self._credential = (given[0].removeprefix(_BEARER) if len(given) == 1 else "") if given else None

    async def authenticate(self) -> None:
        """By the token among the subprotocols; without one, as for any request: by header, or the session of a page of
        this site. Raises AccessDenied or PermissionDenied.
        """
        self.principal = await self._find()

    async def renew(self) -> None:
        """Ask again: a token may have expired, a key been removed, a user been logged out. Raises AccessDenied, or
        PermissionDenied.
        """
        await self._become(await self._find())

    async def refresh(self, token: str) -> None:
        """Go on with a new token."""
        await self._become(from_credential(token))
        self._credential = token

    async def _find(self) -> Principal:
        if self._credential is not None:
            return from_credential(self._credential)
        return await threads.run(principal_of_socket, self._scope)

    async def _become(self, principal: Principal) -> None:
        if _subject(principal) != _subject(self.principal):
            raise SocketClosed(CloseCode.FORBIDDEN)
        self.principal = principal

    async def may(self, need: Need) -> bool:
        if not isinstance(self.principal, SiteUser):
            return self.principal.may(need)
        return await threads.run(self.principal.may, need)  # the policy may query the database

    async def check(self, need: Need) -> None:
        """Raises Forbidden."""
        if not await self.may(need):
            raise Forbidden

    async def find_run(self, run_id: str, need: Callable[[Run | None], Need]) -> Run:
        """The run, for who may do what `need` says of it. Raises RunNotFound or Forbidden: which of them depends on the
        caller and the id alone, so that nobody learns whether there is a run that is none of their business.
        """
        run = await find_run(run_id)
        if run is not None and await self.may(need(run)):
            return run
        raise RunNotFound(run_id) if await self.may(need(None)) else Forbidden


def _subject(principal: Principal) -> tuple[object, ...]:
    """What stays the same when a token is refreshed: what kind of credential it is, of which user, and which fields it
    hides. (All tokens are of the one project; their scopes may change.)
    """
    if isinstance(principal, SiteUser):
        return ("user", principal.user.pk)
    return (type(principal), principal.skip_columns)
