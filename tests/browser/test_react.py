"""The React page of the how-to, bundled from its own lines, with the unmodified official hooks in a real browser."""

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

from realtime_runs import auth, tasks
from tests.conftest import ROOT, WebServer
from tests.interop.conftest import MODULES, Uninstallable, install_packages
from tests.services import skip_or_fail
from tests.test_docs import blocks

PAGE = ROOT / "docs/how-to/react.md"
OPTIONS = re.findall(
    r"--(?:bundle|format|jsx|external)\S*",
    PAGE.read_text(encoding="utf-8").partition("npx esbuild")[2].partition("\n")[0],
)


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What esbuild makes of the how-to's jsx."""
    try:
        install_packages()
    except Uninstallable as reason:
        skip_or_fail(request.config, f"React cannot be installed: {reason}")
    source = next(block for block in blocks(PAGE) if block.language == "jsx")
    done = subprocess.run(
        [MODULES / ".bin/esbuild", *OPTIONS, "--loader=jsx"],
        input=source.code,
        cwd=MODULES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(300)  # the first of the suite may have to install the packages
def test_the_react_page_shows_a_run_and_its_words_until_the_end(
    server: WebServer, nobody_executes: None, page: Page, script: str
) -> None:
    run = tasks.trigger("stream-text", {"text": "words as they come"})
    token = auth.create_public_token({"read": {"runs": run.id}})
    html = (
        f'<div id="app" data-run="{run.id}" data-token="{token}"></div><script type="module" src="/report.js"></script>'
    )
    page.route("**/report", lambda route: route.fulfill(content_type="text/html", body=html))
    page.route("**/report.js", lambda route: route.fulfill(content_type="text/javascript", body=script))
    page.goto(f"{server.url}/report")
    page.get_by_text("COMPLETED: words as they come").wait_for()
