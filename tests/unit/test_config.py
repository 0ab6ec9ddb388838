"""What stands in config.toml becomes the policy of groups and the agents of this machine."""

import re

import pytest

from sokovan.config import load_config
from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "config.toml").write_text(text)
        return load_config(tmp_path, {})

    return read


def test_a_group_has_the_policy_that_its_section_says(read):
    config = read("""
        [groups.default]
        order = "drf"
        ranking = "fragmentation"
        backfill = "conservative"
        walltime_default_s = 3600
        ageing_s = 0
        agent_kernels_max = 8
    """)

    (group,) = config.scaling_groups()
    assert (group.order, group.ranking) == (QueueOrder.DRF, AgentRanking.FRAGMENTATION)
    assert group.backfill is Backfill.CONSERVATIVE
    assert (group.walltime_default_s, group.ageing_s, group.agent_kernels_max) == (3600.0, 0.0, 8)


def test_a_group_without_settings_has_the_defaults_of_the_domain(read):
    assert read("").scaling_groups() == (ScalingGroup(),)
    assert read("[groups.default]\nagent_kernels_max = 0").scaling_groups() == (ScalingGroup(),)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('order = "best"', "groups.default.order: 'best' does not exist; choose one of fifo, lifo"),
        ('ranking = "best"', "groups.default.ranking: 'best' does not exist"),
        ('backfill = "best"', "groups.default.backfill: 'best' does not exist; choose one of none"),
        ("walltime_default_s = 0", "groups.default.walltime_default_s: 0 is out of range"),
        ("ageing_s = -1", "groups.default.ageing_s: -1 is out of range"),
        ("agent_kernels_max = -1", "groups.default.agent_kernels_max: -1 is out of range"),
        ("kernels_max = 0", "groups.default.kernels_max: 0 is out of range"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_its_name(read, setting, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(f"[groups.default]\n{setting}")


def test_an_agent_has_the_labels_that_its_section_says(read):
    (agent,) = read('[[agents]]\nlabels = {rack = "r1", zone = "north 2"}').agents

    assert agent.labels == {"rack": "r1", "zone": "north 2"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ('"rack=r1"', "agents[0].labels: expected a table"),
        ("{rack = 1}", "agents[0].labels.rack: expected a text, not 1"),
        ('{gpu_model = "H100"}', "agents: 'local': labels: every agent has gpu_model by itself"),
        ('{"a b" = "1"}', "agents: 'local': labels: 'a b' cannot be the name of a label"),
        ('{rack = ""}', "agents: 'local': labels: '' cannot be the value of rack"),
    ],
)
def test_labels_that_no_constraint_could_name_are_refused(read, labels, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(f"[[agents]]\nlabels = {labels}")
