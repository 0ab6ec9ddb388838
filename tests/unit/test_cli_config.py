"""`sokovan config` prints what counts, of what was asked for, and notes what the server missed."""

import json
import os

import pytest

from sokovan.cli.main import run


@pytest.fixture
def said(tmp_path, capsys):
    (tmp_path / "config.toml").write_text("[api]\nport = 7\n\n[groups.default]\n[groups.night]\n")

    def said(*argv, code=0):
        assert run(["--home", str(tmp_path), "config", *argv]) == code
        return capsys.readouterr()

    return said


def test_a_name_narrows_to_it_or_to_what_is_below_it(said):
    assert said("api.port").out.splitlines() == [
        "SETTING   VALUE  SOURCE",
        "api.port  7      config.toml:2",
    ]
    groups = json.loads(said("groups.night", "agents[0].cpu", "--json").out)
    assert groups[0]["name"] == "agents[0].cpu"
    assert all(one["name"].startswith("groups.night.") for one in groups[1:])
    assert {one["source"] for one in groups} == {"default"}


def test_what_each_means_is_said_on_demand(said):
    assert "takes a free one" in said("api.port", "--long").out
    assert "takes a free one" not in said("api.port").out


def test_a_name_that_no_setting_has_is_refused_with_those_there_are(said):
    assert (
        "api.por: no such setting; there are scheduler, store, api" in said("api.por", code=2).err
    )


def test_a_server_that_has_read_an_older_file_is_noted(said, tmp_path):
    (tmp_path / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://x"}))
    (tmp_path / "lock").write_text("1\n")
    changed = (tmp_path / "config.toml").stat().st_mtime_ns

    os.utime(tmp_path / "lock", ns=(changed + 1, changed + 1))
    assert said("api").err == ""
    os.utime(tmp_path / "lock", ns=(changed - 1, changed - 1))
    assert "config.toml was changed after the server read it" in said("api").err
