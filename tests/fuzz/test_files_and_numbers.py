"""Whatever stands in a home's files, and whatever is written as an amount or a time."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sokovan.client import Client, server_file
from sokovan.client.sync_connection import Connection
from sokovan.config import (
    NOT_LESS,
    AgentConfig,
    ApiConfig,
    Config,
    GroupConfig,
    SchedulerConfig,
    StoreConfig,
    load_config,
)
from sokovan.domain.errors import ConfigError, SokovanError
from sokovan.domain.quantities import (
    format_duration,
    format_milli,
    format_size,
    parse_duration,
    parse_milli,
    parse_size,
)

SECTIONS: dict[str, type] = {
    "[scheduler]": SchedulerConfig,
    "[store]": StoreConfig,
    "[api]": ApiConfig,
    "[[agents]]": AgentConfig,
    "[groups.default]": GroupConfig,
    "[groups.default.limits.start-sessions]": type("L", (), {"__dataclass_fields__": {
        "attempts_max": None, "phase_s_max": None}}),
}  # fmt: skip
SETTINGS = [(head, name) for head, kind in SECTIONS.items() for name in kind.__dataclass_fields__]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["../../x", "", "a" * 300, "\0", "-1", "1e999", "auto", "none", "0,1", "OFF; DROP TABLE x"]
)
CELLS = (
    st.integers()
    | st.floats()
    | st.booleans()
    | TEXTS
    | st.sampled_from([-1, 0, 10**400, 2**53 + 1, 65536, 1e-320, float("inf")])
)


def as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def refusal_of(read: Callable[[], object]) -> SokovanError | None:
    """Return why something is refused, when it is; any other exception is a failure."""
    try:
        read()
    except SokovanError as error:
        return error
    return None


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


# --- config.toml ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "name"), SETTINGS, ids=lambda text: text)
def test_any_value_of_a_setting_is_workable_or_refused_by_its_name(home, head, name):
    @given(CELLS)
    def try_it(value):
        (home / "config.toml").write_text(f"{head}\n{name} = {as_toml(value)}\n")
        refusal = refusal_of(lambda: is_workable(load_config(home, {})))
        if refusal is not None:
            assert refusal.code == "invalid-config"
            assert len(refusal.message) < 1000
            assert name in refusal.message or refusal.message.startswith("agents: ")

    try_it()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 10_000, "nested too deeply"),
        ("[api]\nport = " + "9" * 5000, "4300 digits"),
        ("[api]\nport = -1", "api.port: -1 is out of range; it must be from 0 to 65535"),
        ('[api]\nhost = ""', "api.host: '' is no address"),
        ("[api]\npage_sessions_max = 0", "api.page_sessions_max: 0 is out of range"),
        ("[scheduler]\nhint_cycle_s = 0", "scheduler.hint_cycle_s: 0 is out of range"),
        ("[scheduler]\nfull_cycle_s = 1e300", "scheduler.full_cycle_s: 1e+300 is out of range"),
        ("[scheduler]\nfull_cycle_s = 1" + "0" * 400, "scheduler.full_cycle_s: 1000"),
        ('[store]\nsynchronous = "OFF; DROP TABLE x"', "choose one of FULL, NORMAL"),
        ('[[agents]]\nname = "../x"', "agents: '../x' is no name"),
        ('[[agents]]\ncpu = "lots"', "agents: 'local': cpu: 'lots' is not an amount"),
        ('[[agents]]\nmem = "lots"', "agents: 'local': mem: 'lots' is not a size"),
        ('[[agents]]\ngpus = "0,x"', "write auto, none, or indexes such as 0,1"),
        ('[[agents]]\ncgroups = "yes"', "choose one of auto, off"),
        ('[[agents]]\nallow_root = "perhaps"', "choose one of auto, yes, no"),
        ("[[agents]]\ncut_off_stop_s = 0", "agents[0].cut_off_stop_s: 0 is out of range"),
        ("[groups.default.limits.start-sessions]\nattempt_max = 1", "attempt_max: no such setting"),
        ("[groups.default.limits.start-sessions]\nattempts_max = 1.5", "expected a whole number"),
        ("[groups.default.limits.start-sessions]\nattempts_max = 0", "0 is out of range"),
    ],
)
def test_a_setting_with_which_nothing_would_work_is_refused(home, text, said):
    (home / "config.toml").write_text(text)

    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(home, {})


def is_workable(config: Config) -> None:
    """Nothing stands still, and nothing is too much for a database or a clock."""
    parts: list[Any] = [config.scheduler, config.store, config.api, *config.agents]
    for part in (*parts, *config.groups.values()):
        for name in part.__dataclass_fields__:
            value = getattr(part, name)
            if isinstance(value, int | float):
                assert NOT_LESS.get(name, 0) <= value <= 2**53
    for group in config.scaling_groups():
        for limit in group.limits.values():
            assert limit.attempts_max is None or limit.attempts_max >= 1


@given(st.binary(max_size=200) | TEXTS)
@example(b"a = " + b"[" * 10_000)
@example(b"[api]\nport = " + b"9" * 5000)
def test_any_bytes_as_settings_are_read_or_refused(home, content):
    (home / "config.toml").write_bytes(content if isinstance(content, bytes) else content.encode())

    refusal = refusal_of(lambda: is_workable(load_config(home, {})))

    assert refusal is None or refusal.code == "invalid-config"


@given(st.sampled_from(["scheduler", "store", "api"]), st.data(), TEXTS | CELLS.map(str))
def test_any_variable_is_workable_or_refused_by_its_name(home, section, data, text):
    name = data.draw(st.sampled_from(sorted(SECTIONS[f"[{section}]"].__dataclass_fields__)))
    environ = {f"SOKOVAN_{section}_{name}".upper(): text}
    (home / "config.toml").write_text("")

    refusal = refusal_of(lambda: is_workable(load_config(home, environ)))

    assert refusal is None or name in refusal.message.lower() or name == "agent_silence_s"


# --- server.json and token ------------------------------------------------------------------------

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FOUND = st.fixed_dictionaries(
    {}, optional={"pid": JSONS | st.just(os.getpid()), "url": JSONS, "version": JSONS}
)


@given(st.binary(max_size=50) | (FOUND | JSONS).map(json.dumps).map(str.encode))
@example(b'{"pid": Infinity, "url": ""}')
@example(b"[" * 100_000)
@example(b'{"pid": %d}' % os.getpid())
def test_any_server_json_is_used_or_taken_for_none(home, content):
    (home / "server.json").write_bytes(content)

    found = server_file(home)

    assert found is None or isinstance(found["url"], str)


def asked(home: Path, url: str, token: bytes) -> SokovanError:
    """Ask for the status where nobody answers, and return why there was none."""
    (home / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": url}))
    (home / "token").write_bytes(token)
    with pytest.raises(SokovanError) as caught, Client(home) as client:
        client.status()
    return caught.value


@given(st.binary(max_size=50))
@example(b"")
@example(b"\xff")
@example(b"a\nb")
def test_any_token_is_sent_or_refused(home, token):
    error = asked(home, "http://127.0.0.1:1", token)

    assert error.code in {"unauthorized", "server-unreachable"}


@given(
    st.sampled_from(["http://[", "http://127.0.0.1:99999999", "http://", "", "ftp://here", "/x"])
)
def test_an_address_that_is_none_is_refused(home, url):
    assert asked(home, url, b"token").code == "server-unreachable"


# --- answers of something else --------------------------------------------------------------------


class Stranger(httpx.BaseTransport):
    """Answers what it was told to."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._response


HEADERS = st.dictionaries(
    st.sampled_from(["date", "x-sokovan-offset", "x-sokovan-size", "x-sokovan-ended"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=10),
)


@given(
    st.sampled_from([200, 201, 204, 304, 400, 404, 500]),
    HEADERS,
    st.binary(max_size=50) | JSONS.map(json.dumps).map(str.encode),
)
@example(200, {"date": "yesterday"}, b"<html>")
@example(200, {}, b"[" * 100_000)
@example(500, {}, b"[]")
def test_what_a_stranger_answers_is_an_error_with_a_sentence(status, headers, body):
    response = httpx.Response(status, headers=headers, content=body)

    def connect(connection: Connection) -> httpx.Client:
        stranger = Stranger(response)
        return httpx.Client(transport=stranger, base_url="http://here", trust_env=False)

    with mock.patch.object(Connection, "_connect", connect):
        client = Client("/nowhere")
        refusal_of(client.status)
        refusal_of(lambda: client.get("x"))
        refusal_of(lambda: client.read_output("x"))


# --- amounts and times ----------------------------------------------------------------------------

WRITTEN = (
    st.text(max_size=12)
    | st.from_regex(r"[0-9]{1,20}(\.[0-9]{0,20})?[a-zA-Z]{0,3}", fullmatch=True)
    | st.from_regex(r"([0-9]{1,6}-)?[0-9]{1,9}:[0-9]{1,2}(:[0-9]{1,2})?", fullmatch=True)
    | st.sampled_from(["9" * 5000, "\u0663", "1e9", "nan", "-1", "1_000", "0x10", ".", "", "\0"])
)


@pytest.mark.parametrize(
    ("parse", "most"), [(parse_milli, 2**53 * 1000), (parse_size, 2**53), (parse_duration, 10**10)]
)
def test_any_text_is_an_amount_within_bounds_or_refused_by_its_field(parse, most):
    @given(WRITTEN)
    @example("999999-999999999:99:99")
    def read_it(text):
        read = []
        refusal = refusal_of(lambda: read.append(parse(text, field="f")))
        assert refusal is None or refusal.field == "f"
        assert all(0 <= amount <= most for amount in read)

    read_it()


@given(st.integers(0, 2**63), st.floats(0, 1e18))
def test_any_amount_can_be_written(amount, seconds):
    assert parse_milli(format_milli(amount % 2**53), field="f") == amount % 2**53
    assert format_size(amount)
    assert format_duration(seconds)
