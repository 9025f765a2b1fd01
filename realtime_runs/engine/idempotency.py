"""Which run holds an idempotency key. The unique constraint decides races; every write is a compare-and-swap."""

from collections.abc import Sequence
from datetime import timedelta

from realtime_runs.engine.options import hash_key
from realtime_runs.ids import new_run_id
from realtime_runs.models import FromNow, IdempotencyClaim


def holder_of(task_id: str, key: str) -> str | None:
    """The run that holds the key now, if any."""
    return (
        IdempotencyClaim.objects.filter(task=task_id, key_hash=hash_key(key), expires_at__gt=FromNow())
        .values_list("run_id", flat=True)
        .first()
    )


def claim_key(task_id: str, key: str, run_id: str, ttl: timedelta) -> str:
    """Claim the key for a run about to be inserted in this transaction. Returns the id of the run that holds
    it: this one, or another.
    """
    key_hash = hash_key(key)
    claims = IdempotencyClaim.objects.filter(task=task_id, key_hash=key_hash)
    while True:
        # Waits for a transaction that is just claiming the same key; if that one rolls back, the key is ours.
        IdempotencyClaim.objects.bulk_create(
            [IdempotencyClaim(task=task_id, key_hash=key_hash, run_id=run_id, expires_at=FromNow(ttl))],
            ignore_conflicts=True,
        )
        # Taken over when expired; of several callers who see that, the WHERE lets one through.
        claims.filter(expires_at__lte=FromNow()).exclude(run_id=run_id).update(run_id=run_id, expires_at=FromNow(ttl))
        holder = claims.values_list("run_id", flat=True).first()
        if holder is not None:  # else the run that held it failed this moment and gave it back
            return holder


def claim_keys(wishes: Sequence[tuple[str, str, timedelta]]) -> list[tuple[str, bool]]:
    """For each (task, key or "", ttl) the id of its run, and whether that run exists already and so stays in the batch
    that it was made in. In the transaction that inserts the others.
    """
    ids = [(new_run_id(), False) for _ in wishes]
    # In one order everywhere, so that two batches with the same keys wait for each other instead of deadlocking.
    for place in sorted((place for place, (_, key, _) in enumerate(wishes) if key), key=lambda n: (wishes[n][:2], n)):
        task_id, key, ttl = wishes[place]
        holder = claim_key(task_id, key, ids[place][0], ttl)
        ids[place] = (holder, holder != ids[place][0])
    return ids


def release(task_id: str, key: str) -> bool:
    """Forget the key, so that the next trigger makes a new run. False when nobody held it (any more)."""
    held = IdempotencyClaim.objects.filter(task=task_id, key_hash=hash_key(key), expires_at__gt=FromNow())
    deleted, _ = held.delete()
    return bool(deleted)
