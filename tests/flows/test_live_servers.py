"""Web servers, workers and followers as separate processes."""

import httpx
import pytest

from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from tests.conftest import SERVERS, WebServer, eventually, with_settings
from tests.flows.test_live_processes import FOLLOW, Follower, rises

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600


def submit(server: WebServer, task: str, payload: str) -> str:
    """Send the form of the demo page; the id of the run that it triggers."""
    known = set(Run.objects.values_list("pk", flat=True))
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as browser:
        browser.get("/").raise_for_status()
        form = {"task": task, "payload": payload, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post("/trigger", data=form).status_code == 302
    (run_id,) = set(Run.objects.values_list("pk", flat=True)) - known
    return run_id


@pytest.mark.redis
@pytest.mark.postgres
def test_a_run_that_one_server_triggers_and_a_worker_executes_is_seen_by_everybody(
    server_env, start_process, asgi_server, worker, redis_url
):
    env = {"REDIS_URL": redis_url}
    rarely = {"POLL_SECONDS": HOUR, "BACKSTOP_SECONDS": HOUR, "BACKSTOP_WITH_LAYER_SECONDS": HOUR}
    follower = Follower(start_process(["-c", FOLLOW, "tag=demo"], env=with_settings({**server_env, **env}, rarely)))
    no_worker = {"env": env, "BACKEND": "tests.tasks_live.WorkElsewhere", **rarely}
    one, other = asgi_server("daphne", **no_worker), asgi_server("uvicorn", **no_worker)
    process = worker(env=env, **rarely)
    follower.began()
    run_id = submit(one, "progress-task", '{"items": ["a", "b", "c", "d", "e"], "delayMs": 150}')
    items = follower.saw("tag", run_id, RunStatus.COMPLETED)
    assert rises(items)
    assert len(items) >= 4, f"progress should be seen as it goes: {items}"
    attempt = Run.objects.get(pk=run_id).attempts.get()
    assert attempt.worker.endswith(f":{process.pid}")
    shown = httpx.get(f"{other.url}/runs/{run_id}", trust_env=False).text
    assert 'data-status="COMPLETED"' in shown


@pytest.mark.parametrize("kind", SERVERS)
def test_the_worker_inside_a_server_starts_runs_at_once_and_not_when_it_would_look(asgi_server, kind):
    poll_seconds = 30
    server = asgi_server(kind, POLL_SECONDS=poll_seconds)
    for _ in range(3):
        run_id = submit(server, "echo", '"hello"')
        run = eventually(lambda wanted=run_id: Run.objects.filter(pk=wanted, status=RunStatus.COMPLETED).first())
        assert (run.started_at - run.created_at).total_seconds() < poll_seconds / 10
