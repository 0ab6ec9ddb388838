"""Sessions of root: accepted or not, by the setting and by who else uses the server."""

import pytest

from sokovan.api.root_rule import RootRule
from sokovan.config import AgentConfig
from sokovan.domain.errors import ForbiddenError
from tests.build import a_spec

ROOTS = a_spec(owner="root")


def rule(allow_root="auto", users=(), *, is_root=True):
    agents = [AgentConfig(allow_root=allow_root)]
    return RootRule(agents, lambda: set(users), is_root=is_root)


@pytest.mark.parametrize(
    ("allow_root", "users", "accepted"),
    [
        ("auto", [], True),
        ("auto", ["root"], True),
        ("auto", ["root", "daemon"], False),
        ("yes", ["daemon"], True),
        ("no", [], False),
    ],
)
def test_sessions_of_root_are_accepted_as_the_setting_says(allow_root, users, accepted):
    checked = rule(allow_root, users)

    if accepted:
        checked.check([ROOTS])
    else:
        with pytest.raises(ForbiddenError, match="allow_root") as refused:
            checked.check([a_spec(owner="daemon"), ROOTS])
        assert refused.value.field == "owner"


def test_others_are_accepted_whatever_is_said_of_root():
    rule("no", ["daemon"]).check([a_spec(owner="daemon"), a_spec(owner="nobody-of-this-name")])


def test_a_group_of_other_machines_is_left_to_its_agents():
    rule("no").check([a_spec(owner="root", scaling_group="elsewhere")])


def test_a_server_that_is_not_root_runs_nothing_as_root_anyway():
    rule("no", is_root=False).check([ROOTS])
