"""How many runs execute at once in one worker."""

import asyncio
from collections import deque


class CountedSlots:
    """Only on the worker's loop. Runs that come back from waiting go before new ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._returning: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        return max(0, self._most - self._taken - len(self._returning))

    @property
    def taken(self) -> int:
        return self._taken

    def take(self) -> None:
        """For a new run, after `free` said that there is a place."""
        self._taken += 1

    def release(self) -> None:
        self._taken -= 1
        while self._returning and self._taken < self._most:
            returning = self._returning.popleft()
            if not returning.done():  # else it was cancelled while it waited
                self._taken += 1
                returning.set_result(None)

    async def acquire(self) -> None:
        if self._taken < self._most:
            self._taken += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._returning.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()  # given to us in the moment we were cancelled
            raise


class NoSlots:
    """For runs that are executed where they are triggered."""

    def release(self) -> None: ...

    async def acquire(self) -> None: ...
