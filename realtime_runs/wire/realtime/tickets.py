from realtime_runs.access import tickets
from realtime_runs.wire.realtime.base import RealtimeConsumer


class TicketConsumer(RealtimeConsumer):
    """`POST /realtime/v1/tickets`: a ticket that stands for the caller once, in the URL of a subscription
    (live-protocol 2).
    """

    async def post(self) -> None:
        principal = await self.authenticate()
        await self.read_body()
        await self.send_json({"ticket": tickets.issue(principal), "expiresIn": tickets.LIFE_SECONDS})
