"""What an array is made of: indexes, parameters, and what is put into the words of a command."""

import pytest

from sokovan.domain.arrays import ArraySpec, check_array, parse_indexes
from sokovan.domain.errors import InvalidRequestError
from sokovan.identity import IdSource
from tests.build import a_spec

LR_BS = (("lr", ("1e-3", "1e-4")), ("bs", ("32", "64", "128")))


def indexes(text):
    return parse_indexes(text, field="indexes")


def a_sweep(*command, params=LR_BS, **changes):
    return ArraySpec(a_spec(command=command, **changes), params=params)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0-10:5", [0, 5, 10]),
        ("7", [7]),
        ("5,1-2", [1, 2, 5]),
        ("0-9:4,100", [0, 4, 8, 100]),
    ],
)
def test_indexes_are_ranges_steps_and_lists(text, found):
    read = indexes(text)

    assert list(read) == found
    assert all(index in read for index in found)
    assert 3000 not in read
    assert list(indexes(str(read))) == found


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-9:0", "-1", "1,,2", "0-99999999999", "१"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InvalidRequestError, match=r"0-99|go up") as caught:
        indexes(text)

    assert caught.value.field == "indexes"


def test_the_first_parameter_changes_slowest():
    sweep = a_sweep("train", "--lr={lr}", "{bs}", "{index}")

    words = [" ".join(sweep.task(index, "A").command) for index in sweep.numbers()]
    assert words == [
        "train --lr=1e-3 32 0",
        "train --lr=1e-3 64 1",
        "train --lr=1e-3 128 2",
        "train --lr=1e-4 32 3",
        "train --lr=1e-4 64 4",
        "train --lr=1e-4 128 5",
    ]


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("awk '{print $1}'", "awk '{print $1}'"),
        ("echo ${lr} $lr", "echo ${lr} $lr"),
        ("{{lr}} {lr}", "{lr} 1e-3"),
        ('{"lr": {lr}, "n": {index}}', '{"lr": 1e-3, "n": 0}'),
        ("{rl} {} {LR} {0}", "{rl} {} {LR} {0}"),
        ("{lr}{bs}", "1e-332"),
    ],
)
def test_only_what_is_known_is_replaced(word, filled):
    assert a_sweep("sh", "-c", word).task(0, "A").command == ("sh", "-c", filled)


def test_a_value_that_looks_like_a_placeholder_stays_as_it_is():
    sweep = a_sweep("{a}", params=(("a", ("{b}",)), ("b", ("{a}",))))

    assert sweep.task(0, "A").command == ("{b}",)


def test_a_task_is_told_which_one_it_is():
    sweep = a_sweep("x", env={"RUN": "{lr}/{bs}", "PS1": "{user}"}, name="t{index}-{bs}")

    task = sweep.task(4, "abc")

    assert task.name == sweep.name_of(4) == "t4-64"
    assert task.env == {
        "RUN": "1e-4/64",
        "PS1": "{user}",
        "SOKOVAN_ARRAY_ID": "abc",
        "SOKOVAN_ARRAY_INDEX": "4",
        "SOKOVAN_ARRAY_SIZE": "6",
        "SOKOVAN_PARAM_LR": "1e-4",
        "SOKOVAN_PARAM_BS": "64",
    }


def test_no_task_is_longer_than_the_longest():
    sweep = a_sweep("{lr}", "{bs}")

    assert sweep.longest().command == ("1e-3", "128")


@pytest.mark.parametrize(
    ("made_of", "field", "says"),
    [
        ({}, "indexes", "either"),
        ({"indexes": indexes("0-1"), "params": LR_BS}, "indexes", "either"),
        ({"indexes": indexes("0-2000000000")}, "indexes", "more than the 10"),
        ({"indexes": indexes("0-3,2")}, "indexes", "named twice"),
        ({"indexes": indexes("0-3"), "running_max": 0}, "running_max", "1 or more"),
        ({"params": (("a", tuple("xyzw")), ("b", tuple("xyz")))}, "params", "more than the 10"),
        ({"params": (("a", ()),)}, "params", "no values"),
        ({"params": (("index", ("1",)),)}, "params", "taken"),
        ({"params": (("lr", ("1",)), ("LR", ("2",)))}, "params", "taken"),
        ({"params": (("l-r", ("1",)),)}, "params", "cannot be a name"),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(made_of, field, says):
    with pytest.raises(InvalidRequestError, match=says) as caught:
        check_array(ArraySpec(a_spec(), **made_of), tasks_max=10)

    assert caught.value.field == field


def test_many_ids_are_as_good_as_one():
    found = IdSource().session_ids(3000)

    assert len(set(found)) == 3000
    assert {len(session_id) for session_id in found} == {12}
    assert set("".join(found)) == set("23456789abcdefghjkmnpqrstuvwxyz")
