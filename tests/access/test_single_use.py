"""A token that is good for one use is used once, whoever is first (wire-protocol 2.5)."""

import time

import pytest
from django.db import transaction

from realtime_runs.access.single_use import spend
from realtime_runs.exceptions import TokenSpent
from realtime_runs.models import SpentToken

DIGEST = "d" * 64


def use(digest=DIGEST):
    with transaction.atomic():
        spend(digest, time.time() + 900)


@pytest.mark.django_db
def test_a_second_use_is_refused_and_leaves_the_transaction_usable():
    use()
    with transaction.atomic():
        with pytest.raises(TokenSpent):
            spend(DIGEST, time.time() + 900)
        spend("e" * 64, time.time() + 900)
    assert SpentToken.objects.count() == 2


@pytest.mark.django_db
def test_a_use_that_was_rolled_back_is_none():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        spend(DIGEST, time.time() + 900)
        raise ZeroDivisionError
    use()


@pytest.mark.django_db(transaction=True)
def test_outside_of_a_transaction_nothing_is_spent():
    with pytest.raises(RuntimeError):
        spend(DIGEST, time.time() + 900)
    assert not SpentToken.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_succeeds(in_threads):
    outcomes = in_threads(8, use)
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, TokenSpent) for outcome in outcomes) == 7
