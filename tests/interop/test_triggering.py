"""Triggers, batches, idempotency keys and large payloads with the official SDK."""

import pytest

from tests.interop.conftest import checks_of


@pytest.mark.parametrize("check", checks_of("triggering.mjs"))
def test_triggering(check, passes):
    passes("triggering.mjs", check)


@pytest.mark.parametrize("check", checks_of("batches.mjs"))
def test_batches(check, passes):
    passes("batches.mjs", check)
