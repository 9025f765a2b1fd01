"""The one settings dict, and the system checks that look at it."""

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection

from realtime_runs.access.policy import Policy
from realtime_runs.conf import DEFAULTS, app_settings
from realtime_runs.engine import registry
from realtime_runs.tasks import task

IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture
def messages(settings):
    """`messages(NAME=value)`: what the checks say of these settings, by id."""

    def check(**values):
        if values:
            settings.REALTIME_RUNS = values
        return {message.id: message for message in checks.run_checks(tags=["realtime_runs"])}

    return check


# -- reading


def read(name):
    return getattr(app_settings, name)


def test_a_setting_that_is_not_given_has_its_default(settings):
    settings.REALTIME_RUNS = {"MAX_TAGS": 3}
    assert [read("MAX_TAGS"), read("LEASE_SECONDS")] == [3, DEFAULTS["LEASE_SECONDS"]]


def test_no_setting_at_all_is_needed(settings):
    settings.REALTIME_RUNS = {}  # pytest-django tells nobody of the next line
    del settings.REALTIME_RUNS
    assert {name: read(name) for name in DEFAULTS} == DEFAULTS


def test_a_changed_setting_takes_effect_at_once_and_ends_with_its_test(settings):
    before = read("MAX_TAGS")
    settings.REALTIME_RUNS = {"MAX_TAGS": before + 1}
    assert read("MAX_TAGS") == before + 1
    settings.REALTIME_RUNS = {}
    assert read("MAX_TAGS") == DEFAULTS["MAX_TAGS"]


def test_an_unknown_setting_cannot_be_read():
    with pytest.raises(ImproperlyConfigured, match="no setting 'MAX_TAG'"):
        read("MAX_TAG")


def test_settings_that_are_no_dict_cannot_be_read(settings):
    settings.REALTIME_RUNS = "LEASE_SECONDS=3"
    with pytest.raises(ImproperlyConfigured, match="must be a dict"):
        read("MAX_TAGS")


# -- checks


def test_the_settings_of_these_tests_are_fine(messages):
    assert messages() == {}


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_passes_its_own_check(messages, name):
    assert messages(**{name: DEFAULTS[name]}) == {}


def test_an_unknown_setting_is_an_error_that_names_the_known_ones(messages):
    error = messages(MAX_TAG=3)["realtime_runs.E001"]
    assert error.level == checks.ERROR
    assert "no setting 'MAX_TAG'" in error.msg
    assert all(name in error.hint for name in DEFAULTS)


@pytest.mark.parametrize("value", ["MAX_TAGS=3", ["MAX_TAGS"], None, 5])
def test_settings_that_are_no_dict_are_an_error_and_not_a_crash(messages, settings, value):
    settings.REALTIME_RUNS = value
    error = messages()["realtime_runs.E001"]
    assert "not a dict" in error.msg
    assert error.hint.startswith("Write REALTIME_RUNS = {")


NUMBERS = [name for name, default in DEFAULTS.items() if isinstance(default, int | float)]
SECONDS = [name for name in NUMBERS if name.endswith("_SECONDS")]
MAY_BE_ZERO = ["SHUTDOWN_GRACE_SECONDS", "METADATA_FLUSH_SECONDS", "BELL_SECONDS", "LINGER_SECONDS"]
DURATIONS = ["IDEMPOTENCY_KEY_TTL", "FEED_LOOK_BACK", "RETENTION", "TOKEN_MAX_AGE"]
KEY = "a-key-of-thirty-two-characters-ok"
WRONG = [
    *((name, value) for name in NUMBERS for value in ("3", None, True, -1, [1])),
    *((name, 1.5) for name in NUMBERS if name not in SECONDS),
    *((name, 0) for name in NUMBERS if name not in MAY_BE_ZERO),
    *(("LEASE_SECONDS", float(value)) for value in ("nan", "inf")),
    ("MAX_ATTEMPTS", 1001),  # no run may have so many, so that every trigger would be refused
    ("MAX_TAG_LENGTH", 256),  # would not fit the column
    ("MAX_STREAM_KEY_LENGTH", 256),
    *((name, value) for name in DURATIONS for value in ("soon", -1, None, True, "101 years")),
    *(("BACKEND", value) for value in (None, 5, ["a"])),
    *(("CHANNEL_LAYER", value) for value in (None, 5, ["a"])),
    ("TOKEN_MAX_AGE", 0),
    *(("POLICY", value) for value in (None, 5, ["a"])),
    *(("SECRET_KEYS", value) for value in (KEY, None, {KEY: 1}, [""], [5], [KEY, ""], [KEY, "short"])),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_wrong_value_is_an_error_that_says_the_default(messages, name, value):
    error = messages(**{name: value})["realtime_runs.E002"]
    assert error.level == checks.ERROR
    assert error.msg.startswith(f"REALTIME_RUNS[{name!r}] is")
    assert error.hint == f"The default is {DEFAULTS[name]!r}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in MAY_BE_ZERO),
        *((name, 0.25) for name in SECONDS),
        *((name, 7) for name in NUMBERS),
        *((name, value) for name in DURATIONS for value in (90, "1h30m")),
        *(("SECRET_KEYS", value) for value in ([], [KEY, f"{KEY}-2"], (KEY,))),
        ("POLICY", f"{__name__}.OwnPolicy"),
    ],
    ids=str,
)
def test_a_value_with_a_meaning_passes(messages, name, value):
    assert messages(**{name: value}) == {}


def test_several_mistakes_are_told_at_once(settings):
    settings.REALTIME_RUNS = {"MAX_TAG": 1, "MAX_TAGS": 0, "LEASE_SECONDS": "3"}
    found = checks.run_checks(tags=["realtime_runs"])
    assert [message.id for message in found] == ["realtime_runs.E001", "realtime_runs.E002", "realtime_runs.E002"]


@pytest.mark.parametrize("value", ["tr_prod_abc", ["tr_prod_abc"], [KEY, "tr_prod_abc"], {"tr_prod_abc": 1}])
def test_a_wrong_list_of_secret_keys_is_not_printed(messages, value):
    error = messages(SECRET_KEYS=value)["realtime_runs.E002"]
    assert "tr_prod_abc" not in str(error)
    assert KEY not in str(error)


def test_the_secret_key_that_is_wrong_is_told_by_its_position(messages):
    error = messages(SECRET_KEYS=[KEY, f"{KEY}.and.more"])["realtime_runs.E002"]
    assert "the one at position 1 has two dots, like a token" in error.msg


class OwnPolicy(Policy):
    pass


class NoPolicy:
    pass


@pytest.mark.parametrize("path", ["nowhere", "nowhere.Policy", "os.path.join", "", f"{__name__}.NoPolicy"])
def test_a_policy_that_cannot_be_used_is_an_error(messages, path):
    error = messages(POLICY=path)["realtime_runs.E008"]
    assert "POLICY" in error.msg
    assert DEFAULTS["POLICY"] in error.hint


class NoBackend:
    pass


@pytest.mark.parametrize(
    "path",
    [
        *("nowhere", "nowhere.Backend", "realtime_runs.engine.backends.immediate.Missing", "os.path.join", ""),
        f"{__name__}.NoBackend",
    ],
)
def test_a_backend_that_cannot_be_used_is_an_error(messages, path):
    error = messages(BACKEND=path)["realtime_runs.E003"]
    assert "BACKEND" in error.msg
    assert DEFAULTS["BACKEND"] in error.hint


@pytest.mark.parametrize("name", ["payload", "return"])
def test_annotations_that_cannot_be_used_are_an_error_at_the_function(messages, name):
    def job(payload):
        pass

    job.__annotations__[name] = "Missing"
    task(id="bad-annotations")(job)
    try:
        error = messages()["realtime_runs.E004"]
    finally:
        del registry._tasks["bad-annotations"]
    assert "'bad-annotations'" in error.msg
    assert "Missing" in error.msg
    assert error.obj is job
    assert "pydantic" in error.hint


def test_a_layer_that_reaches_no_other_process_is_a_warning(messages, settings):
    settings.CHANNEL_LAYERS = IN_MEMORY
    settings.DEBUG = False
    warning = messages()["realtime_runs.W001"]
    assert warning.level == checks.WARNING
    assert "channels_redis" in warning.hint


@pytest.mark.parametrize(("layers", "debug"), [(IN_MEMORY, True), ({}, False)])
def test_one_process_needs_no_layer(messages, settings, layers, debug):
    settings.CHANNEL_LAYERS = layers
    settings.DEBUG = debug
    assert messages() == {}


def test_a_layer_that_is_named_but_does_not_exist_is_told(messages, settings):
    # Else every process would poll, and nobody would know why.
    settings.CHANNEL_LAYERS = {"default": IN_MEMORY["default"]}
    found = messages(CHANNEL_LAYER="redis")
    assert len(found) == 1
    (message,) = found.values()
    assert "'redis'" in message.msg
    assert "CHANNEL_LAYERS" in message.hint


@pytest.fixture
def database_messages(monkeypatch):
    """`database_messages(vendor)`: what the database checks say of the default database with these options."""

    def check(vendor=connection.vendor, **options):
        monkeypatch.setattr(connection, "vendor", vendor)
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        # Only ours: Django's own would ask the database.
        found = checks.registry.registry.get_checks()
        ours = [one for one in found if one.__module__ == "realtime_runs.checks" and checks.Tags.database in one.tags]
        return {message.id: message for one in ours for message in one(app_configs=None, databases=["default"])}

    return check


def test_local_times_are_an_error(settings):
    found = [one for one in checks.run_checks(tags=["realtime_runs"]) if one.id == "realtime_runs.E007"]
    assert not found
    settings.USE_TZ = False
    (error,) = [one for one in checks.run_checks(tags=["realtime_runs"]) if one.id == "realtime_runs.E007"]
    assert "USE_TZ = True" in error.hint


@pytest.mark.parametrize("vendor", ["mysql", "oracle"])
def test_other_databases_are_an_error(database_messages, vendor):
    error = database_messages(vendor)["realtime_runs.E005"]
    assert vendor in error.msg
    assert "PostgreSQL" in error.hint


@pytest.mark.parametrize("options", [{}, {"transaction_mode": "DEFERRED"}, {"transaction_mode": None}])
def test_sqlite_whose_writers_do_not_queue_is_a_warning(database_messages, options):
    warning = database_messages("sqlite", **options)["realtime_runs.W002"]
    assert '"transaction_mode": "IMMEDIATE"' in warning.hint


@pytest.mark.parametrize("mode", ["IMMEDIATE", "immediate"])
def test_sqlite_whose_writers_queue_is_fine(database_messages, mode):
    assert database_messages("sqlite", transaction_mode=mode) == {}


def test_postgresql_needs_no_options(database_messages):
    assert database_messages("postgresql") == {}


def test_manage_py_check_prints_the_error_and_its_hint(settings):
    settings.REALTIME_RUNS = {"LEASE_SECONDS": -1}
    with pytest.raises(SystemCheckError, match=r"\(realtime_runs\.E002\).*\n\s+HINT: The default is 30\."):
        call_command("check", tags=["realtime_runs"])
