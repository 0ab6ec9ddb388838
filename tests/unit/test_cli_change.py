"""What people type for `edit`, `redo` and `groups set`, and what is made of it."""

import pytest

from sokovan.cli.change import change_options
from sokovan.cli.exits import UsageError
from sokovan.cli.groups import _policy
from sokovan.domain.errors import InvalidRequestError


def test_what_is_not_said_is_left_out():
    assert change_options() == {}
    assert change_options(priority=0, name="") == {"priority": 0, "name": ""}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"walltime": "1h30m"}, {"walltime_s": 5400.0}),
        ({"walltime": "none"}, {"walltime_s": None}),
        ({"pending_timeout": "none"}, {"pending_timeout_s": None}),
        ({"begin": "none"}, {"begin_at": None}),
        ({"begin": "2026-11-23T18:30:00+01:00"}, {"begin_at": "2026-11-23T17:30:00Z"}),
        ({"cpu": "0.5", "mem": "2G"}, {"cpu_milli": 500, "mem_bytes": 2 * 1024**3}),
        ({"gpu": "2", "gpu_mem": "40G"}, {"gpu_shares": 2000, "gpu_mem_bytes_min": 40 * 1024**3}),
        ({"requeue": False, "retries": 0}, {"requeue": False, "retries": 0}),
        ({"constraint": ["rack = r1"]}, {"where": {"constraints": ["rack=r1"]}}),
        ({"no_constraint": True}, {"where": {"constraints": []}}),
        ({"exclude": ["left"]}, {"where": {"exclude": ["left"]}}),
        ({"anywhere": True}, {"where": None}),
        ({"allow_infeasible": True}, {"allow_infeasible": True}),
    ],
)
def test_options_are_read_into_the_fields_of_the_api(said, read):
    assert change_options(**said) == read


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ({"walltime": "soon"}, "time: "),
        ({"cpu": "many"}, "cpu: "),
        ({"constraint": ["rack"]}, "constraint: "),
        ({"constraint": ["rack=r1"], "no_constraint": True}, "no-constraint: it contradicts"),
        ({"agent": ["left"], "anywhere": True}, "anywhere: it contradicts"),
    ],
)
def test_what_makes_no_sense_is_named_by_its_option(said, begins):
    with pytest.raises(InvalidRequestError, match=f"^{begins}"):
        change_options(**said)


def test_settings_of_a_group_are_words_numbers_durations_or_nothing():
    words = ["order=lifo", "kernels_max=8", "ageing_s=1h", "pending_timeout_s=0.5", "backfill="]

    assert _policy([*words, "limits.start-sessions.phase_s_max=10m"]) == {
        "order": "lifo",
        "kernels_max": 8,
        "ageing_s": 3600.0,
        "pending_timeout_s": 0.5,
        "backfill": None,
        "limits.start-sessions.phase_s_max": 600.0,
    }


@pytest.mark.parametrize("words", [["order"], ["=lifo"], ["order=lifo", "order="], ["ageing_s=x"]])
def test_what_is_no_setting_is_refused_before_anybody_is_asked(words):
    with pytest.raises(UsageError):
        _policy(words)
