"""Runs, their metadata and tags with the official SDK, and the metadata manager of its workers."""

import pytest

from tests.interop.conftest import checks_of


@pytest.mark.parametrize("check", checks_of("runs.mjs"))
def test_runs(check, passes):
    passes("runs.mjs", check)
