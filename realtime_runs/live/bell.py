"""Saying, after commit, that runs have a new version. The only writer to the channel layer.

A bell is a hint: it may be lost, late or doubled, and it carries no state, so nothing breaks. Inside the process it
goes straight to the hub; for other processes the bells of a topic are joined for BELL_SECONDS and sent as one message.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from channels.layers import BaseChannelLayer
from django.db import transaction

from realtime_runs.conf import app_settings
from realtime_runs.live.chunks import Appended
from realtime_runs.live.layer import carrying_layer
from realtime_runs.live.loop import live_loop
from realtime_runs.live.topics import WORK, Topic, run_topic, token_topic, topics_of
from realtime_runs.models import Change, StreamName

logger = logging.getLogger("realtime_runs.live")

MESSAGE_TYPE: Final = "realtime_runs.bell"
PROCESS_ID = uuid.uuid4().hex  # so that a process can tell its own bells; another one after a fork

Bells = dict[Topic, dict[str, int]]  # topic → run id → version

Tails = dict[str, dict[str, int]]  # run id → "kind/key" of a stream → how many chunks it has

_in_process: list[Callable[[Bells], None]] = []
_in_process_chunks: list[Callable[[Sequence[Appended]], None]] = []


def connect(
    receive: Callable[[Bells], None], receive_chunks: Callable[[Sequence[Appended]], None] = lambda news: None
) -> None:
    """Let the hub of this process hear its bells directly."""
    _in_process.append(receive)
    _in_process_chunks.append(receive_chunks)


def announce(changes: Sequence[Change]) -> None:
    """Ring the topics of these changes once the current transaction is committed (at once outside of one)."""
    if changes:
        _ring_on_commit([(topic, c.run_id, c.version) for c in changes for topic in topics_of(c)])


def announce_work(run_ids: Sequence[str]) -> None:
    """Tell workers, after commit, that these runs may be ready or may have been canceled."""
    if run_ids:
        _ring_on_commit([(WORK, run_id, 0) for run_id in run_ids])


def announce_tokens(token_ids: Sequence[str]) -> None:
    """Tell those who wait for these wait tokens, after commit, that nobody needs to wait any more."""
    if token_ids:
        _ring_on_commit([(token_topic(token_id), token_id, 0) for token_id in token_ids])


def announce_chunks(news: Sequence[Appended]) -> None:
    """Tell the readers of these streams after commit: those of this process get the chunks, others how many there are.

    Streams have no topic of their own. Their bells ring on the topic of their run, which their readers follow anyway,
    to see it end.
    """
    if news:
        transaction.on_commit(lambda: _ring_chunks(news), robust=True)


def _ring_chunks(news: Sequence[Appended]) -> None:
    for receive in _in_process_chunks:
        receive(news)
    if carrying_layer() is not None:
        live_loop.call(_publisher.add_tails, [(one.name, one.next_index) for one in news])


def _ring_on_commit(rings: list[tuple[Topic, str, int]]) -> None:
    # robust: a bell that fails is logged by Django and fails neither the caller nor other callbacks. To log it, Django
    # 5.2 needs a function with a name, which a partial does not have.
    transaction.on_commit(lambda: _ring(rings), robust=True)


def _ring(rings: Iterable[tuple[Topic, str, int]]) -> None:
    bells: Bells = {}
    for topic, run_id, version in rings:
        bells.setdefault(topic, {})[run_id] = version
    for receive in _in_process:
        receive(bells)
    if carrying_layer() is not None:
        live_loop.call(_publisher.add, bells)


class Publisher:
    """Sends bells to other processes: the first one at once, then at most one message per topic and BELL_SECONDS."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._waiting: Bells = {}
        self._tails: Tails = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, bells: Bells) -> None:
        """Only on the live loop."""
        for topic, versions in bells.items():
            self._waiting.setdefault(topic, {}).update(versions)
        self._start()

    def add_tails(self, tails: Sequence[tuple[StreamName, int]]) -> None:
        """Only on the live loop."""
        for name, next_index in tails:
            known = self._tails.setdefault(name.run_id, {})
            known[f"{name.kind}/{name.key}"] = next_index
            self._waiting.setdefault(run_topic(name.run_id), {})
        self._start()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        while self._waiting:
            bells, self._waiting = self._waiting, {}
            tails, self._tails = self._tails, {}
            layer = carrying_layer()
            if layer is None:
                return
            try:
                for topic, versions in bells.items():
                    await self._send(layer, topic, versions, tails.get(topic.name, {}) if topic.kind == "run" else {})
            except Exception:
                # Readers elsewhere see the change by their backstop; the run must not notice.
                logger.warning("The channel layer did not take a bell.", exc_info=True)
            await asyncio.sleep(app_settings.BELL_SECONDS)

    async def _send(
        self, layer: BaseChannelLayer, topic: Topic, versions: dict[str, int], tails: dict[str, int]
    ) -> None:
        message: dict[str, Any] = {
            "type": MESSAGE_TYPE,
            "from": PROCESS_ID,
            "topic": [topic.kind, topic.name],
            "versions": versions,
            **({"tails": tails} if tails else {}),
        }
        await layer.group_send(topic.group, message)


_publisher: Final = Publisher()


def _begin_anew() -> None:
    """In a forked child, whose live loop is another one."""
    global PROCESS_ID
    PROCESS_ID = uuid.uuid4().hex
    _publisher.forget()


os.register_at_fork(after_in_child=_begin_anew)
