"""Tokens, scopes and refusals, as the official SDK makes and shows them."""

import pytest

from tests.interop.conftest import checks_of


@pytest.mark.parametrize("check", checks_of("tokens.mjs"))
def test_tokens(check, passes):
    passes("tokens.mjs", check)
