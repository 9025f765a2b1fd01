"""Secret keys: which there are, which may be one, what is signed with them."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime_runs.access import keys, principals, tokens
from realtime_runs.access.principals import KeyHolder, TokenHolder, from_header
from realtime_runs.exceptions import InvalidToken
from tests.access.claims import a_token

OLD = "the-old-secret-key-of-this-server"
NEW = "the-new-secret-key-of-this-server"


@pytest.fixture
def use(settings):
    def use(*secret_keys):
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": [*secret_keys]}

    return use


def who(credential):
    return type(from_header(f"Bearer {credential}"))


def test_without_a_key_one_is_derived_from_the_secret_key_that_does_not_show_it(settings):
    use_django_key(settings, "first")
    (key,) = keys.secret_keys()
    assert keys.what_is_wrong_with(key) is None
    assert key.startswith("tr_dev_")
    assert "first" not in key
    assert keys.secret_keys() == (key,)
    use_django_key(settings, "second")
    assert keys.secret_keys() != (key,)


def use_django_key(settings, key, *fallbacks):
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = key, [*fallbacks]


def test_what_was_signed_before_the_secret_key_was_rotated_is_good_while_that_is_a_fallback(settings):
    use_django_key(settings, "first")
    old_key, token = keys.secret_keys()[0], a_token()
    use_django_key(settings, "second", "first")
    assert keys.secret_keys()[0] != old_key
    assert [who(old_key), who(token)] == [KeyHolder, TokenHolder]
    use_django_key(settings, "second")
    for credential in (old_key, token):
        with pytest.raises(InvalidToken):
            who(credential)


def test_no_key_is_derived_from_an_empty_fallback(settings):
    use_django_key(settings, "first", "")
    assert len(keys.secret_keys()) == 1


def test_nothing_of_django_is_good_as_a_key(settings):
    for text in (settings.SECRET_KEY, "", "None"):
        assert not keys.is_secret_key(text)


def test_the_first_key_signs_and_all_verify_until_they_are_removed(use):
    use(OLD)
    token = a_token()
    use(NEW, OLD)
    assert [who(OLD), who(NEW), who(token), who(a_token())] == [KeyHolder, KeyHolder, TokenHolder, TokenHolder]
    newer = a_token()
    use(NEW)
    assert [who(NEW), who(newer)] == [KeyHolder, TokenHolder]
    for credential in (OLD, token):
        with pytest.raises(InvalidToken):
            who(credential)


def test_a_keyed_hash_follows_the_keys(use):
    use(OLD)
    made = keys.keyed_hash("callback", "one")
    use(NEW, OLD)
    assert keys.is_keyed_hash(made, "callback", "one")
    assert keys.is_keyed_hash(made[:16], "callback", "one", length=16)
    for given, purpose, text in [
        (made, "callback", "two"),
        (made, "other", "one"),
        (made[:-1], "callback", "one"),
        ("", "callback", "one"),
        ("\ud800é", "callback", "one"),
    ]:
        assert not keys.is_keyed_hash(given, purpose, text)
    use(NEW)
    assert not keys.is_keyed_hash(made, "callback", "one")


BAD_KEYS = [
    "",
    None,
    5,
    b"the-only-secret-key-of-this-server",
    "short",
    f"{OLD} ",
    f"{OLD}\n",
    f"{OLD}é",
    f"{OLD}.a.b",
    f"{OLD}..",
    "tr_prod_sk_" + "a1B2" * 6,
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_what_cannot_be_a_key_is_told_and_never_trusted(use, key):
    assert keys.what_is_wrong_with(key)
    use(OLD, key)
    with pytest.raises(ImproperlyConfigured) as told:
        keys.secret_keys()
    assert OLD not in str(told.value)


@pytest.mark.parametrize("value", [OLD, {OLD: 1}, {OLD}])
def test_what_is_no_list_of_keys_is_not_taken_apart_into_some(settings, value):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": value}
    with pytest.raises(ImproperlyConfigured):
        keys.is_secret_key(OLD[0])


@pytest.mark.parametrize("text", ["é" * 32, "\ud800", "", OLD[:-1], f"{OLD}x", OLD.upper()])
def test_what_is_not_exactly_a_key_is_none(use, text):
    use(OLD)
    assert not keys.is_secret_key(text)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Token {}", "Bearer: {}", "Bearer {},{}"]
)
def test_a_header_that_is_no_bearer_is_refused_without_showing_it(use, header):
    use(OLD)
    with pytest.raises(InvalidToken) as told:
        from_header(header.replace("{}", OLD))
    assert OLD not in str(told.value)


def test_the_scheme_has_no_case_and_the_credential_may_have_spaces_around(use):
    use(OLD)
    assert isinstance(from_header(f"bEARER   {OLD} "), KeyHolder)


def test_what_has_two_dots_is_never_tried_as_a_key(monkeypatch):
    monkeypatch.setattr(principals, "is_secret_key", lambda text: True)
    with pytest.raises(InvalidToken):
        from_header("Bearer a.b.c")


def test_the_id_of_the_environment_has_the_form_that_clients_know():
    assert tokens.claims_of() == {"sub": keys.ENVIRONMENT_ID, "pub": True}
    assert keys.ENVIRONMENT_ID.removeprefix("env_").isalnum()
    assert len(keys.ENVIRONMENT_ID) >= 24
