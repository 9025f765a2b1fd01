"""What the other tests of this folder rest on: a page that does something wrong fails its test."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Pages
from tests.conftest import WebServer


def test_the_home_page_is_there_and_accessible(server: WebServer, page: Page, accessible: Callable[..., None]) -> None:
    page.goto(server.url)
    page.get_by_role("heading", name="Start a run").wait_for()
    accessible(page)


def test_errors_on_the_console_are_found(pages: Pages) -> None:
    page = pages.context.new_page()
    page.set_content("<p>page</p><script>console.error('broken'); throw new Error('thrown')</script>")
    page.wait_for_function("document.readyState == 'complete'")
    page.evaluate("0")
    assert len(pages.problems) == 2
    with pytest.raises(AssertionError):
        pages.check()
    pages.expected = ["broken", "thrown"]


def test_faults_of_accessibility_are_found(page: Page, accessible: Callable[..., None]) -> None:
    page.set_content("<html lang=en><title>t</title><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>")
    with pytest.raises(AssertionError, match="image-alt"):
        accessible(page)
