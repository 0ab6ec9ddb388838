"""What labels may look like, and whose word counts."""

import pytest

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.labels import LABELS_MAX, check_labels, merged, relabelled
from sokovan.domain.where import AGENT_ATTRIBUTES, DEVICE_ATTRIBUTES


@pytest.mark.parametrize(
    ("name", "value"),
    [("rack", "r1"), ("a.b-c_9", "10.0.0.1:80/x"), ("os", "Debian 13"), ("k" * 63, "v" * 127)],
)
def test_names_and_values_that_a_constraint_can_name_are_labels(name, value):
    check_labels({name: value}, field="labels")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("", "r1", "cannot be the name"),
        ("9rack", "r1", "a letter first"),
        ("rack=", "r1", "cannot be the name"),
        ("räck", "r1", "cannot be the name"),
        ("k" * 64, "r1", "1 to 63 letters"),
        ("rack", "", "cannot be the value of rack"),
        ("rack", " r1", "first of them no space"),
        ("rack", "a|b", "cannot be the value"),
        ("rack", "a\nb", "cannot be the value"),
        ("rack", "v" * 128, "1 to 127"),
        *((name, "1", "every agent has") for name in (*AGENT_ATTRIBUTES, *DEVICE_ATTRIBUTES)),
    ],
)
def test_what_no_constraint_could_name_is_no_label(name, value, said):
    with pytest.raises(InvalidRequestError, match=said) as refused:
        check_labels({name: value}, field="labels")

    assert refused.value.field == "labels"
    assert len(refused.value.message) < 300


def test_an_agent_has_not_any_number_of_labels():
    check_labels({f"a{n}": "1" for n in range(LABELS_MAX)}, field="labels")

    with pytest.raises(InvalidRequestError, match="leave some out"):
        check_labels({f"a{n}": "1" for n in range(LABELS_MAX + 1)}, field="labels")


def test_an_administrator_s_word_wins_and_can_be_no_label_at_all():
    own = {"rack": "r1", "zone": "north"}

    assert merged(own, {}) == own
    assert merged(own, {"rack": "r2", "zone": "", "new": "1"}) == {"new": "1", "rack": "r2"}


def test_taking_away_what_the_settings_do_not_say_leaves_nothing_behind():
    own = {"rack": "r1"}

    said = relabelled(own, {"zone": "north"}, {"rack": None, "zone": None, "new": "1"})

    assert said == {"rack": "", "new": "1"}
    assert relabelled(own, said, {"rack": "r1", "new": None}) == {"rack": "r1"}
