import asyncio
import threading
import time
from typing import Any

import pytest
from channels.layers import BaseChannelLayer
from django.db import transaction

from realtime_runs import batch, runs
from realtime_runs.live import bell
from realtime_runs.live.bell import Bells
from realtime_runs.live.layer import carrying_layer
from realtime_runs.live.loop import live_loop
from realtime_runs.live.topics import WORK, Topic, batch_topic, run_topic, tag_topic
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from tests import tasks as t

# Emptying only our own tables after each test takes half the time.
pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE_TAGS = ["é", "user:1", "a,b", "x" * 128, "😀" * 128, "\u202e", "a b", "%s", "..", "'; --"]


@pytest.fixture
def heard(monkeypatch) -> list[Bells]:
    """What this process' bells say, one item for each time they ring."""
    heard: list[Bells] = []
    monkeypatch.setattr(bell, "_in_process", [heard.append])
    return heard


def later(**options: Any) -> str:
    """The id of a run that nobody executes yet."""
    return t.echo.trigger(1, delay="1h", **options).id


def touch(run_id: str, **values: Any) -> None:
    with transaction.atomic():
        bell.announce(Run.objects.filter(pk=run_id).touch(**values))


# -- when bells ring, and for whom ------------------------------------------------------------------------------------


def test_a_bell_waits_for_the_commit(heard):
    with transaction.atomic():
        run_id = later()
        runs.cancel(run_id)
        assert not heard
    assert heard[:2] == [{run_topic(run_id): {run_id: 1}}, {run_topic(run_id): {run_id: 2}}]


def test_a_rollback_rings_nothing(heard):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        runs.add_tags(later(), "a")
        bell.announce_work(["run_1"])
        raise ZeroDivisionError
    assert not heard


def test_a_rolled_back_savepoint_rings_nothing_though_the_rest_commits(heard):
    with transaction.atomic():
        kept = later()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            runs.cancel(kept)
            later()
            raise ZeroDivisionError
    assert heard == [{run_topic(kept): {kept: 1}}]


def test_a_change_rings_the_run_each_of_its_tags_and_its_batch(heard):
    handle = batch.trigger([{"task": t.echo, "payload": 1, "options": {"tags": ["a", "b"], "delay": "1h"}}])
    run_id = handle.run_ids[0]
    topics = {run_topic(run_id), tag_topic("a"), tag_topic("b"), batch_topic(handle.id)}
    assert heard.pop() == {topic: {run_id: 1} for topic in topics}
    runs.add_tags(run_id, "c")
    assert heard.pop() == {topic: {run_id: 2} for topic in topics | {tag_topic("c")}}


def test_a_bell_names_the_newest_version_when_a_transaction_changed_a_run_twice(heard):
    run_id = later()
    changes = [change for _ in range(2) for change in Run.objects.filter(pk=run_id).touch()]
    bell.announce(changes)
    assert heard[-1] == {run_topic(run_id): {run_id: 3}}


def test_workers_hear_which_runs_to_look_at(heard):
    bell.announce_work(["run_1", "run_2"])
    assert heard == [{WORK: {"run_1": 0, "run_2": 0}}]


def test_no_change_rings_no_bell(heard):
    bell.announce([])
    bell.announce_work([])
    runs.cancel(t.echo.trigger(1))  # it is final
    heard.clear()
    runs.cancel(Run.objects.get().id)
    assert not heard


def test_every_tag_has_a_group_that_layers_accept():
    for name in HOSTILE_TAGS:
        BaseChannelLayer().require_valid_group_name(tag_topic(name).group)


def test_different_topics_have_different_groups():
    topics = [Topic(kind, name) for kind in ("run", "tag", "batch", "work") for name in [*HOSTILE_TAGS, "e", "run"]]
    assert len({topic.group for topic in topics}) == len(topics)


# -- bells that fail --------------------------------------------------------------------------------------------------


def test_a_bell_that_fails_fails_neither_the_trigger_nor_what_else_waits_for_the_commit(monkeypatch, caplog):
    def fail(bells: Bells) -> None:
        raise ConnectionError("no bell today")

    monkeypatch.setattr(bell, "_in_process", [fail])
    others: list[str] = []
    with transaction.atomic():
        run_id = t.echo.trigger("x").id
        transaction.on_commit(lambda: others.append("ran"))
    assert runs.retrieve(run_id).status == RunStatus.COMPLETED
    assert others == ["ran"]
    assert "no bell today" in caplog.text


# -- the layer --------------------------------------------------------------------------------------------------------


class RecordingLayer(BaseChannelLayer):
    """Stands for a layer that reaches other processes; fails, or takes its time, on demand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.fails = 0
        self.may_send = threading.Event()
        self.may_send.set()
        self.tries = 0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.tries += 1
        while not self.may_send.is_set():
            await asyncio.sleep(0.005)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the layer is away")
        self.sent.append((group, message))

    def versions(self, topic: Topic) -> list[dict[str, int]]:
        return [message["versions"] for group, message in list(self.sent) if group == topic.group]


@pytest.fixture
def layer(settings) -> RecordingLayer:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "tests.test_bell.RecordingLayer"}}
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BELL_SECONDS": 0.02}
    return carrying_layer()


def test_other_processes_hear_every_topic_of_a_change(layer, eventually):
    run_id = later(tags=HOSTILE_TAGS)
    topics = [run_topic(run_id), *map(tag_topic, HOSTILE_TAGS)]
    eventually(lambda: len(layer.sent) == len(topics))
    assert all(layer.versions(topic) == [{run_id: 1}] for topic in topics)


def test_a_message_carries_positions_and_no_state(layer, eventually):
    run_id = later(metadata={"much": "x" * 100_000})
    eventually(lambda: layer.sent)
    ((group, message),) = layer.sent
    assert group == run_topic(run_id).group
    assert message == {
        "type": "realtime_runs.bell",
        "from": bell.PROCESS_ID,
        "topic": ["run", run_id],
        "versions": {run_id: 1},
    }


def test_bells_of_a_topic_are_joined_while_they_are_frequent(layer, settings, eventually):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BELL_SECONDS": 0.3}
    run_id = later()
    began = time.monotonic()
    for _ in range(100):
        touch(run_id)
    eventually(lambda: layer.versions(run_topic(run_id))[-1:] == [{run_id: 101}])
    windows = (time.monotonic() - began) / 0.3
    # At most one in each window, and the first, which did not wait for one.
    assert len(layer.versions(run_topic(run_id))) <= windows + 2


def test_the_first_bell_does_not_wait_for_others(monkeypatch, layer, settings, eventually):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BELL_SECONDS": 3600}
    monkeypatch.setattr(bell, "_publisher", bell.Publisher())  # as in a process that has sent none yet
    run_id = later()
    eventually(lambda: layer.versions(run_topic(run_id)) == [{run_id: 1}])
    live_loop.call(bell._publisher._task.cancel)


def test_a_layer_that_fails_delays_no_trigger_and_takes_the_next_bell(layer, eventually, caplog):
    layer.fails = 1
    run_id = later()
    eventually(lambda: "did not take a bell" in caplog.text)
    touch(run_id)
    eventually(lambda: layer.versions(run_topic(run_id)) == [{run_id: 2}])


def test_a_layer_that_hangs_delays_no_change_and_gets_the_newest_version_later(layer, eventually):
    layer.may_send.clear()
    run_id = later()
    eventually(lambda: layer.tries)
    for _ in range(20):
        touch(run_id)
    assert not layer.sent
    layer.may_send.set()
    eventually(lambda: layer.versions(run_topic(run_id)) == [{run_id: 1}, {run_id: 21}])


def test_the_in_memory_layer_is_not_used_because_it_reaches_nobody(settings):
    for no_layer in ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, {}):
        settings.CHANNEL_LAYERS = no_layer
        assert carrying_layer() is None


# -- servers that fork ------------------------------------------------------------------------------------------------

FORKED = """
import os
import django

django.setup()
from realtime_runs.live import bell

reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, bell.PROCESS_ID.encode())
    os._exit(0)
os.wait()
print("different" if os.read(reader, 100).decode() != bell.PROCESS_ID else "the same")
"""


def test_processes_of_a_server_that_forked_after_loading_the_app_hear_each_other(start_process, server_env):
    """A process drops the bells that bear its own id, so no other may have the same."""
    process = start_process(["-c", FORKED], env=server_env)
    assert process.wait() == 0
    assert process.output().strip() == "different"
