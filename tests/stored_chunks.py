"""What is in the table of a stream, past all readers."""

from realtime_runs.models import StreamChunk


def stored_chunks(run_id: str, key: str = "log") -> list[bytes]:
    """As they were encoded, in their order. Their indexes are dense."""
    rows = StreamChunk.objects.filter(stream__run=run_id, stream__key=key).order_by("index")
    assert [row.index for row in rows] == list(range(len(rows)))
    return [bytes(row.data) for row in rows]
