"""What Tab offers is what can be typed there, and nothing that a shell would obey."""

import typer.main

from sokovan.cli import completion
from sokovan.cli.main import app
from sokovan.client import Client
from sokovan.domain.events import KINDS
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.stages import LIMITED


class Line:
    """A command line that names a home."""

    parent = None

    def __init__(self, home):
        self.params = {"home": home, "refs": ["bbbb"]}


def a_session(session_id, name="", status="RUNNING"):
    return {"id": session_id, "name": name, "status": status}


def test_whatever_names_a_session_an_agent_or_a_group_completes():
    names = {"ID", "ID...", "AGENT", "SESSION", "[KIND:]ID"}
    options = {"--kind", "--group", "--status", "--agent", "--prefer", "--exclude"}

    def lacking(command, path):
        for name, sub in getattr(command, "commands", {}).items():
            yield from lacking(sub, f"{path} {name}")
        for param in command.params:
            is_meant = param.metavar in names or options & set(param.opts)
            if is_meant and param._custom_shell_complete is None:
                yield f"{path}: {param.name}"

    assert list(lacking(typer.main.get_command(app), "sokovan")) == []


def test_sessions_are_offered_by_id_and_by_name_where_no_id_begins_so(tmp_path, monkeypatch):
    known = [a_session("cccc", "train"), a_session("bbbb"), a_session("aaaa", "cook")]
    monkeypatch.setattr(Client, "list", lambda *_, **__: known)

    def offered(typed):
        found = completion.sessions(Line(tmp_path), typed)
        return [offer for offer in found if offer[0].startswith(typed)]

    assert offered("") == [("cccc", "RUNNING train"), ("aaaa", "RUNNING cook")]
    assert offered("c") == [("cccc", "RUNNING train")]
    assert offered("co") == [("aaaa", "RUNNING cook")]
    assert offered("x") == []


def test_nothing_is_offered_that_a_shell_would_obey(tmp_path, monkeypatch):
    nasty = ["$(reboot)", "a b", "`x`", "\\$(x)", "a;b", "'q'", "a:b", "x\ny", "-", "good-1.2"]
    known = [a_session(f"s{n}", name) for n, name in enumerate(nasty)]
    monkeypatch.setattr(Client, "list", lambda *_, **__: known)

    names = completion.session_names(Line(tmp_path), "")
    said = [says for _, says in completion.sessions(Line(tmp_path), "")]

    assert [name for name, _ in names] == ["good-1.2"]
    assert said[0] == "RUNNING __reboot_"
    assert not set("$`\\;'\":()\n") & set("".join(said))


def test_what_is_wrong_is_not_said_while_a_line_is_typed(tmp_path):
    (tmp_path / "config.toml").write_text("[api")
    (tmp_path / "server.json").write_text("{")

    line = Line(tmp_path)
    for offers in (completion.sessions, completion.agents, completion.groups, completion.settings):
        assert offers(line, "") == []


def test_groups_and_settings_are_those_of_the_home_that_the_line_names(tmp_path):
    (tmp_path / "config.toml").write_text("[groups.default]\n[groups.night]\norder = 'drf'\n")

    groups = completion.groups(Line(tmp_path), "")
    settings = dict(completion.settings(Line(tmp_path), ""))

    assert groups == [("default", "fifo, useful"), ("night", "drf, useful")]
    assert settings["groups.night.order"] == "config.toml:3"


def test_statuses_and_stages_are_those_that_there_are():
    assert completion.statuses("") == list(SessionStatus)
    assert completion.statuses("ru")[0] == "pending"
    assert completion.event_kinds("") == list(KINDS)
    assert [stage for stage, _ in completion.stages("")] == [f"{name}=" for name in LIMITED]
