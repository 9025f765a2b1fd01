"""Following a run that other processes trigger and execute: with Redis by bells, without it by looking."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from realtime_runs import batch, runs
from realtime_runs.statuses import RunStatus
from tests import services
from tests import tasks as t
from tests.conftest import EMBEDDED, Process, eventually, with_settings

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600
LAYERS = ["channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"]

# Follows what its arguments name, each in a thread, and prints a line for each item. Once all do, `trigger=PAYLOAD`
# triggers a run with the tag and follows it to its end.
FOLLOW = """
import json, sys, threading
import django

django.setup()
from realtime_runs import runs, tasks
from realtime_runs.live.hub import hub

lock = threading.Lock()
subscribe = {
    "run": runs.subscribe_to_run,
    "tag": runs.subscribe_to_runs_with_tag,
    "batch": lambda name: runs.subscribe_to_batch(name, stop_on_completion=True),
}

def say(*words):
    with lock:
        print(*words, flush=True)

def follow(kind, name):
    for run in subscribe[kind](name):
        say(json.dumps([kind, run.id, run.version, run.status, run.metadata.get("step")]))
    say(kind, "has ended")

topics = [argument.split("=", 1) for argument in sys.argv[1:]]
threads = [threading.Thread(target=follow, args=topic) for topic in topics if topic[0] != "trigger"]
for thread in threads:
    thread.start()
while hub.listener_count < len(threads):
    threading.Event().wait(0.01)
say("following")
for payload in [name for kind, name in topics if kind == "trigger"]:
    tag = next(name for kind, name in topics if kind == "tag")
    run_id = tasks.trigger("t-live-steps", json.loads(payload), tags=[tag]).id
    follow("run", run_id)
    say("triggered", run_id)
"""

Item = tuple[int, str, int | None]  # version, status and step


class Follower:
    """A process that follows, or is about to."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def began(self) -> "Follower":
        self.process.wait_for_output("following")
        return self

    def triggered(self, number: int) -> str:
        """The id of the `number`th run that it triggered, from 1, once it has followed that to its end."""

        def found() -> str | None:
            lines = [line.split() for line in self.process.output().split("\n")[:-1]]
            ids = [words[1] for words in lines if words[:1] == ["triggered"]]
            return ids[number - 1] if len(ids) >= number else None

        return eventually(found, timeout=30, message="The triggered run was not seen to its end")

    def items(self, kind: str, run_id: str) -> list[Item]:
        """What a subscription of this kind gave of the run."""
        found = []
        for line in self.process.output().split("\n")[:-1]:  # the last one may be half a line
            if line.startswith("["):
                its_kind, its_id, *item = json.loads(line)
                if (its_kind, its_id) == (kind, run_id):
                    found.append(tuple(item))
        return found

    def saw(self, kind: str, run_id: str, status: RunStatus) -> list[Item]:
        """All items of the run, once there was one in this status."""
        eventually(
            lambda: any(item[1] == status for item in self.items(kind, run_id)),
            timeout=20,
            message=f"The {kind} feed has not seen {status}",
        )
        return self.items(kind, run_id)


def rises(items: list[Item]) -> bool:
    versions = [version for version, *_ in items]
    return versions == sorted(set(versions))


@pytest.fixture
def follower(server_env, start_process) -> Callable[..., Follower]:
    """`follower("tag=a", env={…}, BACKSTOP_SECONDS=…)`: a process that follows soon; wait with `began()`."""

    def start(*topics: str, env: dict[str, str] | None = None, **overrides: Any) -> Follower:
        full_env = {**server_env, "REALTIME_RUNS_BACKEND": EMBEDDED, **(env or {})}
        return Follower(start_process(["-c", FOLLOW, *topics], env=with_settings(full_env, overrides)))

    return start


@pytest.fixture(autouse=True)
def _workers_execute(settings):
    """And not the test that triggers."""
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}


# -- without a layer --------------------------------------------------------------------------------------------------


def test_without_a_layer_another_process_sees_runs_tags_and_batches_to_the_end(worker, follower):
    options = {"tags": ["é:1"], "delay": "1h"}
    handle = batch.trigger([{"task": t.live_steps, "payload": {"count": 5}, "options": options}] * 2)
    first, second = handle.run_ids
    other = follower(f"run={first}", "tag=é:1", f"batch={handle.id}")
    worker()
    other.began()
    for run_id in handle.run_ids:
        runs.reschedule(run_id, 0.01)
    later = t.live_steps.trigger({"count": 3}, tags="é:1").id
    seen = [("run", first), ("tag", first), ("tag", second), ("tag", later), ("batch", first), ("batch", second)]
    for kind, run_id in seen:
        items = other.saw(kind, run_id, RunStatus.COMPLETED)
        assert rises(items)
        assert items[-1][2] == (3 if run_id == later else 5)
    other.process.wait_for_output("run has ended")
    other.process.wait_for_output("batch has ended")


@pytest.mark.sqlite
def test_the_shell_of_another_process_follows_a_run_on_the_same_database(server_env, start_process, worker):
    code = """
from realtime_runs import runs, tasks
for run in runs.subscribe_to_run(tasks.trigger("t-live-steps", {"count": 4, "pause": 0.3})):
    print("saw", run.version, run.status, run.metadata.get("step"), flush=True)
print("the end")
"""
    shell = start_process(["manage.py", "shell", "-c", code], env={**server_env, "REALTIME_RUNS_BACKEND": EMBEDDED})
    worker()
    shell.wait_for_output("the end")
    assert shell.wait() == 0
    seen = [line.split()[1:] for line in shell.output().splitlines() if line.startswith("saw")]
    assert seen[0][1:] == ["QUEUED", "None"] or seen[0][1] == "EXECUTING"
    assert seen[-1][1:] == ["COMPLETED", "4"]
    assert len(seen) > 2, "it saw steps in between"


# -- with Redis -------------------------------------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize("layer", LAYERS)
def test_bells_carry_everything_between_processes(redis_url, worker, follower, layer):
    """Nobody looks by himself within the hour: neither the worker for work nor the follower for changes."""
    env = {"REDIS_URL": redis_url, "CHANNEL_LAYER": layer}
    never = {"POLL_SECONDS": HOUR, "BACKSTOP_SECONDS": HOUR, "BACKSTOP_WITH_LAYER_SECONDS": HOUR}
    # The first run may be there when the worker starts. The second finds it idle, and has to wake it.
    other = follower("tag=é:,", 'trigger={"count": 1}', 'trigger={"count": 8, "pause": 0.15}', env=env, **never)
    worker(env=env, **never)
    run_id = other.triggered(2)
    for kind in ("tag", "run"):
        items = other.saw(kind, run_id, RunStatus.COMPLETED)
        assert rises(items)
        assert len(items) >= 6, f"steps should come one by one: {items}"


class OwnRedis:
    """A server that a test may kill and start again at the same address."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        programs = services.redis_on_machine(os.environ.get("PATH", "")) + services.redis_in_package()
        if not programs:
            pytest.skip("no program of Redis or Valkey on this machine")
        self._stack = stack
        self._program: Path = programs[0]
        self._port = services.free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        self._server = services.start_as_someone(self._start_as)

    def _start_as(self, account: services.Account) -> services.Server:
        with services.directory_for(account, "redis") as directory:
            command = [str(self._program), "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(directory)]
            server = services.Server([*command, "--save", ""], account, directory, signal.SIGKILL)
            self._stack.callback(server.stop)
            server.wait_until_answers(partial(services.redis_version, self.url))
        return server

    def kill(self) -> None:
        self._server.stop()


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    with contextlib.ExitStack() as stack:
        yield OwnRedis(stack)


@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.parametrize("layer", LAYERS)
def test_runs_and_followers_outlive_redis_and_use_it_again_when_it_is_back(own_redis, worker, follower, layer):
    env = {"REDIS_URL": own_redis.url, "CHANNEL_LAYER": layer}
    rarely = {"BACKSTOP_SECONDS": 0.5, "BACKSTOP_WITH_LAYER_SECONDS": 2}
    other = follower("tag=a", env=env, **rarely)
    worker(env=env, **rarely)
    other.began()

    during = t.live_steps.trigger({"count": 20, "pause": 0.1}, tags="a").id
    eventually(lambda: any(step and step >= 2 for *_, step in other.items("tag", during)), timeout=20)
    own_redis.kill()
    without = t.live_steps.trigger({"count": 1}, tags="a").id
    for run_id in (during, without):
        assert runs.poll(run_id, interval=0.05, timeout=20).status == RunStatus.COMPLETED
        assert rises(other.saw("tag", run_id, RunStatus.COMPLETED))

    own_redis.start()

    def comes_by_bells() -> bool:
        # In these 1.5 seconds looking alone brings four versions at most.
        run_id = t.live_steps.trigger({"count": 12, "pause": 0.12}, tags="a").id
        items = other.saw("tag", run_id, RunStatus.COMPLETED)
        assert rises(items)
        return len(items) >= 8

    eventually(comes_by_bells, timeout=30, message="Bells should come through again")
