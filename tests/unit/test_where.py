"""Constraints as people write them, and what can never be met together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.where import Comparison, Where, contradiction, parse_constraint


@pytest.mark.parametrize(
    ("text", "attribute", "comparison", "values"),
    [
        ("rack=r1", "rack", "=", ("r1",)),
        (" rack = r2 | r1 ", "rack", "=", ("r1", "r2")),
        ("gpu_model!=T4", "gpu_model", "!=", ("T4",)),
        ("gpu_model=NVIDIA H100 80GB HBM3", "gpu_model", "=", ("NVIDIA H100 80GB HBM3",)),
        ("mem_gpu>=40G", "mem_gpu", ">=", ("40G",)),
        ("gen<=3", "gen", "<=", ("3",)),
    ],
)
def test_a_constraint_names_an_attribute_and_what_it_is_to_be(text, attribute, comparison, values):
    constraint = parse_constraint(text)

    assert constraint.attribute == attribute
    assert constraint.comparison is Comparison(comparison)
    assert constraint.values == values
    assert parse_constraint(str(constraint)) == constraint


@given(st.text(max_size=50) | st.from_regex(r"[a-z ]{0,3}(=|!=|>=|<=)[a-z0-9| .]{0,9}"))
def test_any_text_is_a_constraint_or_refused_in_a_sentence(text):
    said = ""
    try:
        constraint = parse_constraint(text)
        assert parse_constraint(str(constraint)) == constraint
    except InvalidRequestError as error:
        said = error.message
    assert not said or said.startswith("constraint: ")
    assert len(said) < 400


def said_of(*constraints, **wishes):
    where = Where(constraints=tuple(map(parse_constraint, constraints)), **wishes)
    return contradiction(where)


@pytest.mark.parametrize(
    "constraints",
    [
        ("rack=r1", "rack=r2"),
        ("rack=r1", "rack!=r1|r2"),
        ("cpu=2", "cpu=4"),
        ("mem>=8G", "mem<=4G"),
    ],
)
def test_what_no_agent_can_meet_is_said(constraints):
    assert "cannot both be met" in said_of(*constraints)


def test_what_contradicts_itself_at_length_is_said_in_short():
    said = said_of(*(f"rack={'x' * 100}{n}" for n in range(100)))

    assert len(said) < 300


@pytest.mark.parametrize(
    "constraints",
    [
        ("rack=r1|r2", "rack=r2|r3"),
        ("rack=r1|r2", "rack!=r1"),
        ("cpu=2", "cpu=2.0"),
        ("mem=1G", "mem=1024M"),
        ("mem>=4G", "mem<=4G"),
        ("gpu_model=H100", "gpu_model=NVIDIA H100"),
        ("gpu_model=h100", "gpu_model=H100"),
    ],
)
def test_what_some_agent_can_meet_is_no_contradiction(constraints):
    assert said_of(*constraints) is None
