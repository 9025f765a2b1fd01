"""The throttles of the project's DRF settings apply to the REST half."""

import pytest
from rest_framework.throttling import BaseThrottle

from realtime_runs.wire.rest.runs import RunsView
from tests.wire.api import get

pytestmark = pytest.mark.django_db


class OnlyTheFirst(BaseThrottle):
    calls = 0

    def allow_request(self, request, view):
        type(self).calls += 1
        return self.calls == 1

    def wait(self):
        return 4.2


def test_who_is_throttled_is_told_when_to_come_back(monkeypatch):
    monkeypatch.setattr(OnlyTheFirst, "calls", 0)
    monkeypatch.setattr(RunsView, "throttle_classes", [OnlyTheFirst])  # as DEFAULT_THROTTLE_CLASSES would
    assert get("/api/v1/runs").status_code == 200
    answer = get("/api/v1/runs")
    assert (answer.status_code, answer["retry-after"]) == (429, "5")
    assert answer.json() == {"error": "Rate limit exceeded"}
