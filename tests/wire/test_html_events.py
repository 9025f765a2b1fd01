"""Runs and streams as events of HTML: `?html=1`."""

import json
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import runs, streams
from realtime_runs.access import tokens
from realtime_runs.models import Run
from tests import tasks as t
from tests.wire.exchange import Exchange, ask, key_header

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


class EventSource(Exchange):
    """Reads events as a browser does: lines of data are put together again (WHATWG HTML 9.2.6)."""

    def __init__(self, path, headers=None, last_id=None):
        headers = {**(key_header() if headers is None else headers), "accept": "text/event-stream"}
        super().__init__("GET", path, headers | ({"last-event-id": last_id} if last_id else {}))
        self._text = ""
        self.last_id = last_id or ""

    async def event(self):
        """Name and data of the next event."""
        while True:
            while "\n\n" not in self._text:
                assert not self.is_over, "the stream is over"
                self._text += (await self.piece()).decode()
            text, _, self._text = self._text.partition("\n\n")
            assert "\r" not in text
            fields = [line.split(": ", 1) for line in text.split("\n") if not line.startswith(":")]
            found = dict(fields)
            self.last_id = found.get("id", self.last_id)
            if "data" in found:
                return found["event"], "\n".join(value for name, value in fields if name == "data")

    async def events(self, count):
        return dict([await self.event() for _ in range(count)])


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


@sync_to_async
def change(run_id, metadata):
    Run.objects.filter(pk=run_id).touch(metadata=json.dumps(metadata))


@sync_to_async
def append(run_id, *chunks):
    for chunk in chunks:
        streams.append("out", chunk, target=run_id)


cancel = sync_to_async(runs.cancel)
add_tags = sync_to_async(runs.add_tags)


async def test_a_run_comes_as_the_elements_that_the_tags_render():
    run_id = await new_run(metadata={"progress": {"current": 1, "total": 2}, "status": "a\nb"})
    async with EventSource(f"/realtime/v1/runs/{run_id}?html=1") as source:
        assert await source.start() == 200
        first = await source.events(2)
        assert first.keys() == {"status", "progress"}
        assert first["status"].startswith(f'<run-status run="{run_id}" data-task="t-echo" data-status="QUEUED"')
        assert '<span part="percentage">50%</span>' in first["progress"]
        assert "a\nb</span>" in first["progress"]
        assert source.last_id == "1"


async def test_only_what_looks_different_comes_and_an_end():
    run_id = await new_run(metadata={"progress": 10})
    async with EventSource(f"/realtime/v1/runs/{run_id}?html=1") as source:
        await source.start()
        await source.events(2)
        await add_tags(run_id, "shown-nowhere")
        await change(run_id, {"progress": 20})
        name, html = await source.event()
        assert name == "progress"
        assert "20%" in html
        await cancel(run_id)
        assert (await source.events(2))["status"].endswith('<span part="label">Canceled</span></run-status>')
        assert await source.event() == ("end", "completed")
        assert await source.rest() == b""
        at = source.last_id
    answer = await ask("GET", f"/realtime/v1/runs/{run_id}?html=1",
                       {**key_header(), "accept": "text/event-stream", "last-event-id": at})  # fmt: skip
    assert answer.status == 204


async def test_who_is_cut_off_amid_the_events_of_a_version_gets_all_of_them_again():
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}?html=1") as source:
        await source.start()
        await source.event()
        assert source.last_id == ""


async def test_runs_of_a_tag_have_events_of_their_own():
    one, other = await new_run(tags=["a"]), await new_run(tags=["a"])
    async with EventSource("/realtime/v1/runs?tags=a&html=1") as source:
        await source.start()
        assert (await source.events(4)).keys() == {
            f"status-{one}", f"progress-{one}", f"status-{other}", f"progress-{other}"
        }  # fmt: skip
        await cancel(other)
        assert (await source.events(2)).keys() == {f"status-{other}", f"progress-{other}"}


async def test_a_token_without_metadata_gets_no_progress():
    run_id = await new_run(metadata={"status": "secret"})
    scopes = [f"read:runs:{run_id}"]
    headers = {"authorization": f"Bearer {tokens.sign(scopes, life=HOUR, skip_columns=['metadata'])}"}
    async with EventSource(f"/realtime/v1/runs/{run_id}?html=1", headers) as source:
        await source.start()
        name, html = await source.event()
        assert name == "status"
        await change(run_id, {"status": "still secret"})
        await cancel(run_id)
        assert "secret" not in html + (await source.rest()).decode()


async def test_who_lost_the_right_is_told_to_stay_away(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "PING_SECONDS": 0.05}
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}?html=1") as source:
        await source.start()
        await source.events(2)
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": ["tr_dev_another-key-of-some-length"]}
        assert await source.event() == ("end", "auth")


@pytest.mark.parametrize("path", ["runs/{}", "streams/{}/out"])
async def test_it_needs_the_same_rights(path):
    path = path.format(await new_run())
    other = {
        "authorization": f"Bearer {tokens.sign(['read:runs:run_other'], life=HOUR)}",
        "accept": "text/event-stream",
    }
    for headers, status in (({"accept": "text/event-stream"}, 401), (other, 403)):
        assert (await ask("GET", f"/realtime/v1/{path}?html=1", headers)).status == status


async def test_a_stream_comes_as_text_that_is_put_behind_what_is_there():
    run_id = await new_run()
    await append(run_id, "<b> ", " two\r\nlines\n", {"a": 1}, "end")
    async with EventSource(f"/realtime/v1/streams/{run_id}/out?html=1") as source:
        await source.start()
        assert await source.event() == ("chunk", "&lt;b&gt;  two\nlines\n{&quot;a&quot;:1}\nend")
        assert source.last_id == "3"
        await append(run_id, {"b": 2})
        assert await source.event() == ("chunk", "\n{&quot;b&quot;:2}\n")
    async with EventSource(f"/realtime/v1/streams/{run_id}/out?html=1", last_id="3") as source:
        await source.start()
        assert await source.event() == ("chunk", "{&quot;b&quot;:2}\n")
        await cancel(run_id)
        assert await source.event() == ("end", "canceled")
        assert await source.rest() == b""
