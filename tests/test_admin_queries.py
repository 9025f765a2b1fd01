"""The pages of the admin read by index what they show, and never the whole table: by the plans of their statements."""

import re

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from realtime_runs.admin import overview
from realtime_runs.models import Run, RunTag
from tests.test_queries import Plan, explain, many_runs, run_id  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db


@pytest.fixture
def plans(many_runs, admin_user):  # noqa: F811 - the fixture
    """`plans("run_changelist", **query)`: of the statements of a page about runs."""
    client = Client()
    client.force_login(admin_user)

    def collect(name: str, *args: str, **query: str) -> list[Plan]:
        found: list[Plan] = []

        def look(execute, sql, params, many, context):
            if re.match(r"SELECT", sql) and '"realtime_runs_run"' in sql:
                found.append(explain(sql, params))
            return execute(sql, params, many, context)

        overview.forget()
        with connection.execute_wrapper(look):
            assert client.get(reverse(f"admin:realtime_runs_{name}", args=args), query).status_code == 200
        assert found
        return found

    return collect


LIST = "run_changelist"


def reads_all(plan: Plan) -> bool:
    """Rows from the end of an index, without a condition, are no more than the page has."""
    is_end_of_index = " LIMIT " in plan.sql and " WHERE " not in plan.sql and not plan.sorts
    return not is_end_of_index and any(access.reads_all_runs for access in plan.accesses)


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ({}, "the primary key"),
        ({"behind": run_id(2000)}, "the primary key"),
        ({"behind": run_id(2000), "tag": "tag-3"}, "the primary key"),
        ({"before": run_id(2000)}, "the primary key"),
        ({"status": "FAILED"}, "run_status_idx"),
        ({"task": "task-rare"}, "run_task_idx"),
        ({"tag": "tag-3"}, "the primary key"),
        ({"batch": "batch_3"}, "run_batch_idx"),
        ({"created": "1d"}, "the primary key"),
        ({"q": run_id(2000)}, "the primary key"),
        ({"q": "tag-3"}, "the primary key"),
        ({"q": "order-17"}, "run_key_idx"),
    ],
    ids=str,
)
def test_the_list_reads_by_index_and_in_its_order(plans, query, indexes):
    Run.objects.filter(pk=run_id(100)).update(idempotency_key="order-17")
    found = plans(LIST, **query)
    everything = "\n\n".join(map(str, found))
    used = {access.index for plan in found for access in plan.accesses}
    assert indexes in used, everything
    for plan in found:
        assert not reads_all(plan), plan
        assert not plan.sorts or query.keys() & {"batch", "tag", "q"}, plan  # those are few


def test_the_runs_of_a_tag_come_in_order_from_its_index(many_runs):  # noqa: F811 - the fixture
    rows = RunTag.objects.filter(tag="tag-3", run__lt=run_id(2000)).order_by("-run_id").values_list("run_id", flat=True)
    plan = explain(*rows[:1000].query.sql_with_params())
    assert ([access.index for access in plan.accesses], plan.sorts) == (["run_tag_by_tag_idx"], False), plan


@pytest.mark.parametrize("name", ["run_overview", "run_counts"])
def test_overview_and_counters_read_by_index(plans, name):
    for plan in plans(name, counts=run_id(2000)):
        assert not reads_all(plan), plan


def test_failures_have_an_index_of_their_own(plans):
    used = {access.index for plan in plans("run_counts") for access in plan.accesses}
    assert "run_failed_idx" in used


def test_the_page_of_a_run_reads_by_index(plans):
    for plan in plans("run_change", run_id(2001)):
        assert not reads_all(plan), plan
