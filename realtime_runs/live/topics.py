"""What one can follow, and under which name the channel layer knows it."""

import hashlib
from dataclasses import dataclass
from typing import Final

from realtime_runs.models import Change


@dataclass(frozen=True, slots=True)
class Topic:
    kind: str  # "run", "tag", "batch", "token" or "work"
    name: str

    @property
    def group(self) -> str:
        """The layer's group. Hashed, because a group name is ASCII below 100 characters and a tag is not."""
        return "realtime_runs." + hashlib.sha256(f"{self.kind}:{self.name}".encode()).hexdigest()[:40]


# Rung when a worker should look: a run may be ready, or one that is running was canceled.
WORK: Final = Topic("work", "")


def run_topic(run_id: str) -> Topic:
    return Topic("run", run_id)


def tag_topic(name: str) -> Topic:
    return Topic("tag", name)


def batch_topic(batch_id: str) -> Topic:
    return Topic("batch", batch_id)


def token_topic(token_id: str) -> Topic:
    return Topic("token", token_id)


def topics_of(change: Change) -> list[Topic]:
    """Every topic whose followers see this change."""
    topics = [run_topic(change.run_id), *map(tag_topic, change.tags)]
    if change.batch_id:
        topics.append(batch_topic(change.batch_id))
    return topics
