"""Where a session may go, as plain fields and back."""

import pytest

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.where import ANYWHERE, ClusterMode, Where, parse_constraint
from sokovan.domain.where_fields import fields_of, where_of

WHERE = Where(
    mode=ClusterMode.SINGLE_NODE,
    kernels_per_agent_max=2,
    same="rack",
    constraints=tuple(sorted(map(parse_constraint, ("rack=r2|r1", "gpu_model!=T4", "mem>=4G")))),
    agents=("left", "right"),
    prefer=("left",),
    exclude=("middle",),
    spread_with=("web",),
    pack_with=("db",),
)


def test_what_is_written_is_read_again():
    fields = fields_of(WHERE)

    assert where_of(fields) == WHERE
    assert fields["constraints"] == ["gpu_model!=T4", "mem>=4G", "rack=r1|r2"]
    assert fields.keys() == set(Where.__dataclass_fields__)


def test_what_is_not_said_is_not_written():
    assert fields_of(ANYWHERE) == {}
    assert where_of({}) is ANYWHERE
    assert fields_of(Where(same="multi-node")) == {"same": "multi-node"}


def test_what_is_said_twice_counts_once_and_in_one_order():
    one = where_of({"constraints": ["b=1", "a=1", "b = 1"], "agents": ["x", "y", "x"]})
    other = where_of({"constraints": ["a=1", "b=1"], "agents": ["x", "y"]})

    assert one == other


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"constraints": ["rack"]}, InvalidRequestError),
        ({"constraints": "rack=r1"}, TypeError),
        ({"mode": "all-over"}, ValueError),
        ({"same": 1}, TypeError),
        ({"kernels_per_agent_max": True}, TypeError),
        ({"agents": [1]}, TypeError),
    ],
)
def test_what_says_nothing_is_refused(fields, error):
    with pytest.raises(error):
        where_of(fields)
