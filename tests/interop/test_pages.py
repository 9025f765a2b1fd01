"""The official React hooks in a headless page of another origin, which keeps the rules of CORS."""

import pytest

from tests.interop.conftest import checks_of


@pytest.mark.parametrize("check", checks_of("pages.mjs"))
def test_pages(check, passes):
    passes("pages.mjs", check)
