"""The OpenAPI description."""

import re

import pytest
from django.core.management import call_command
from django.urls import URLPattern

from realtime_runs import urls
from tests.wire.api import get

pytestmark = pytest.mark.django_db

NOT_DESCRIBED = ("api/schema", "api/docs", "^api/", "pages/")


def test_the_description_is_valid_without_a_warning(tmp_path):
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_it_is_served_and_has_every_route_and_nothing_of_the_project():
    answer = get("/api/schema", auth="")
    assert answer.status_code == 200
    paths = set(answer.json()["paths"])
    assert all(path.startswith("/api/") for path in paths)

    def spelled(pattern: URLPattern) -> str:
        text = str(pattern.pattern).removeprefix("^").removesuffix(r"\Z")
        text = re.sub(r"<\w+:(\w+)>", r"{\1}", text)
        return "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", text)

    hidden = re.compile(r"/api/v1/(packets-upload|packets-download|runs-packets-download)/")
    wanted = {spelled(one) for one in urls.urlpatterns if not str(one.pattern).startswith(NOT_DESCRIBED)}
    assert paths == {path for path in wanted if not hidden.match(path)}


def test_the_page_to_try_it_loads_nothing_from_elsewhere():
    page = get("/api/docs", auth="").content.decode()
    assert "swagger" in page.lower()
    assert not re.search(r"(src|href)=\"?https?://", page)


def test_any_other_path_is_not_found_in_json():
    for path in ("/api/", "/api/v1/nothing", "/api/v3/runs", "/api/v1/runs/x/y\n"):
        answer = get(path, auth="")
        assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})
