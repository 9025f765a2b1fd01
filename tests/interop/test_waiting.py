"""Input streams and wait tokens with the official SDK, and the input manager of its workers."""

import pytest

from tests.interop.conftest import checks_of


@pytest.mark.parametrize("check", checks_of("waiting.mjs"))
def test_waiting(check, passes):
    passes("waiting.mjs", check)
