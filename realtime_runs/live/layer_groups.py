"""The groups of the channel layer that the hub is in, and the bells of other processes that come through them.

The only reader of the channel layer. A part of the hub; all of it is on the live loop.
"""

import asyncio
import logging
from collections.abc import Callable, KeysView
from typing import Final

from channels.layers import BaseChannelLayer

from realtime_runs.live import bell
from realtime_runs.live.topics import Topic

logger = logging.getLogger("realtime_runs.live")

_RETRY_SECONDS: Final = 1.0

# What a message brings: its topic, the versions of runs by id, and how many chunks their streams have by kind/key.
Hear = Callable[[Topic, dict[str, int], dict[str, int]], None]


class LayerGroups:
    """`topics`: those of the hub, as they are at any time."""

    def __init__(self, layer: BaseChannelLayer, topics: KeysView[Topic], hear: Hear) -> None:
        self._layer = layer
        self._topics = topics
        self._hear = hear
        self._channel: str | None = None
        self._channel_lock = asyncio.Lock()
        #: Whether bells come through, as far as the last call has shown.
        self.works = False

    async def join(self, topic: Topic) -> None:
        try:
            await self._layer.group_add(topic.group, await self._own_channel())
            self.works = True
        except Exception:
            self._is_away()

    async def join_all(self) -> None:
        """Again: before the layer lets the memberships expire, and after it was away."""
        for topic in list(self._topics):
            await self.join(topic)

    async def leave(self, topic: Topic) -> None:
        try:
            if self._channel is not None:
                await self._layer.group_discard(topic.group, self._channel)
        except Exception:
            logger.warning("The channel layer did not let a group go.", exc_info=True)

    async def run(self) -> None:
        while True:
            try:
                # Never under wait_for: cancelling `receive` makes the pub/sub layer forget the channel.
                message = await self._layer.receive(await self._own_channel())
            except Exception:
                self._is_away()
                await asyncio.sleep(_RETRY_SECONDS)
                await self.join_all()
                continue
            if message.get("type") == bell.MESSAGE_TYPE and message["from"] != bell.PROCESS_ID:
                self._hear(Topic(*message["topic"]), message["versions"], message.get("tails", {}))

    async def _own_channel(self) -> str:
        async with self._channel_lock:
            if self._channel is None:
                self._channel = await self._layer.new_channel()
            return self._channel

    def _is_away(self) -> None:
        self.works = False  # the backstop becomes quick until the layer is back
        logger.warning("The channel layer cannot be reached; polling the database meanwhile.", exc_info=True)
