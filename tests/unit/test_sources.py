"""Each setting's value says where it came from: a line of the file, a variable, or the default."""

from dataclasses import fields, is_dataclass

import pytest

from sokovan.config import AgentConfig, Config, GroupConfig
from sokovan.domain.errors import ConfigError
from sokovan.sources import settings_of

FILE = """# what this machine does
scheduler.hint_cycle_s = 1
[api] # the server
port = 7077
host = "127.0.0.2"

[[agents]]
name = "a"
  [agents.labels]
  rack = "r1"

[[agents]]
gpus = "none"
name = "b"

[groups.default]
[groups."big.one"]
order = "drf"
limits = {"start-sessions" = {attempts_max = 3}}
"""


@pytest.fixture
def sources(tmp_path):
    def sources(text, **environ):
        (tmp_path / "config.toml").write_text(text)
        return {s.name: (s.value, s.source) for s in settings_of(tmp_path, environ)}

    return sources


def test_a_value_from_the_file_is_named_with_its_line(sources):
    found = sources(FILE)

    assert {name: at for name, at in found.items() if at[1] != "default"} == {
        "scheduler.hint_cycle_s": (1.0, "config.toml:2"),
        "api.port": (7077, "config.toml:4"),
        "api.host": ("127.0.0.2", "config.toml:5"),
        "agents[0].name": ("a", "config.toml:8"),
        "agents[0].labels": ({"rack": "r1"}, "config.toml:9"),
        "agents[1].gpus": ("none", "config.toml:13"),
        "agents[1].name": ("b", "config.toml:14"),
        "groups.big.one.order": ("drf", "config.toml:18"),
        "groups.big.one.limits": ({"start-sessions": {"attempts_max": 3}}, "config.toml:19"),
    }


def test_a_value_that_spans_lines_is_named_with_its_first(sources):
    found = sources("[api]\nhost = '''\n127.0.0.2'''\nport = 7\n")

    assert found["api.host"] == ("127.0.0.2", "config.toml:2")
    assert found["api.port"] == (7, "config.toml:4")


def test_tables_inside_a_list_are_counted_from_nought(sources):
    found = sources('agents = [\n  {name = "a"},\n  {name = "b", cpu = "2"},\n]\n')

    assert found["agents[1].cpu"] == ("2", "config.toml:3")
    assert found["agents[0].cpu"] == ("", "default")


def test_a_variable_wins_over_the_file_and_is_named(sources):
    found = sources("[api]\nport = 7\n", SOKOVAN_API_PORT="8", SOKOVAN_STORE_SYNCHRONOUS="NORMAL")

    assert found["api.port"] == (8, "SOKOVAN_API_PORT")
    assert found["store.synchronous"] == ("NORMAL", "SOKOVAN_STORE_SYNCHRONOUS")


def test_every_setting_is_there_and_explained(tmp_path):
    found = settings_of(tmp_path, {})

    expected = {f"agents[0].{f.name}" for f in fields(AgentConfig)}
    expected |= {f"groups.default.{f.name}" for f in fields(GroupConfig)}
    for section in fields(Config):
        if is_dataclass(section.type):
            expected |= {f"{section.name}.{f.name}" for f in fields(section.type)}
    assert {setting.name for setting in found} == expected
    assert all(setting.source == "default" and setting.meaning for setting in found)


def test_a_mistake_in_the_file_is_said_as_everywhere(sources):
    with pytest.raises(ConfigError, match=r"api\.prot: no such setting"):
        sources("[api]\nprot = 7\n")


@pytest.mark.parametrize(("given", "lacks"), [("cert", "key"), ("key", "cert")])
def test_half_of_a_certificate_is_refused(sources, given, lacks):
    with pytest.raises(ConfigError, match=rf"api\.tls_{lacks}_file: .* beside api\.tls_{given}"):
        sources(f'[api]\ntls_{given}_file = "x.pem"\n')
