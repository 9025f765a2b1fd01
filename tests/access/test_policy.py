"""What users of the site may do."""

import pytest
from django.contrib.auth.models import AnonymousUser, User

from realtime_runs.access import rules
from realtime_runs.access.policy import Policy, get_policy
from realtime_runs.access.principals import KeyHolder, SiteUser
from realtime_runs.exceptions import Forbidden
from realtime_runs.models import Run
from tests import tasks as t

NEEDS = [rules.trigger("job"), rules.list_runs([]), rules.only_with_key("tokens"), rules.cancel("run_1", None)]


class OwnRuns(Policy):
    """As the documentation of Policy writes it."""

    def can(self, user, action, run):
        if run is None:
            return action == "read"
        return f"user:{user.pk}" in run.tag_names

    def visible(self, user, runs):
        return runs.tagged([f"user:{user.pk}"])


@pytest.fixture
def own_runs(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OwnRuns"}


@pytest.mark.parametrize("need", NEEDS)
def test_active_staff_may_do_everything_unless_the_project_says_otherwise(need):
    assert SiteUser(User(is_staff=True)).may(need)


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize(
    "user",
    [User(), User(is_superuser=True), User(is_staff=True, is_active=False), AnonymousUser()],
    ids=["anybody", "superuser", "inactive", "anonymous"],
)
def test_all_others_may_nothing(user, need):
    with pytest.raises(Forbidden):
        SiteUser(user).check(need)


@pytest.mark.django_db
def test_who_may_read_nothing_sees_nothing():
    t.echo.trigger()
    assert not Policy().visible(User(), Run.objects.all()).exists()
    assert Policy().visible(User(is_staff=True), Run.objects.all()).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("own_runs")
def test_a_policy_of_the_project_decides_by_user_action_and_run():
    mine, other = (Run.objects.get(pk=t.echo.trigger(tags=[tag]).id) for tag in ("user:1", "user:11"))
    user = SiteUser(User(pk=1, is_staff=True))
    assert isinstance(get_policy(), OwnRuns)
    assert [user.may(rules.read_run(run)) for run in (mine, other)] == [True, False]
    assert [user.may(rules.cancel(run.pk, run)) for run in (mine, other)] == [True, False]
    assert [user.may(need) for need in NEEDS] == [False, True, False, False]
    assert list(user.visible(Run.objects.all())) == [mine]
    assert not user.sees_all


def test_each_user_has_an_identity_of_its_own():
    names = [SiteUser(User(pk=1)).identity, SiteUser(User(pk=2)).identity, KeyHolder().identity]
    assert len(set(names)) == 3
