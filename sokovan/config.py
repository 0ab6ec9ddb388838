"""Settings: a tree of frozen dataclasses, read from `config.toml` in the home and the environment.

A setting `scheduler.hint_cycle_s` is `hint_cycle_s` below `[scheduler]` in the file, and
`SOKOVAN_SCHEDULER_HINT_CYCLE_S` in the environment, which wins.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.errors import ConfigError, HomeError, InvalidRequestError
from sokovan.domain.labels import check_labels
from sokovan.domain.quantities import parse_milli, parse_size
from sokovan.domain.sessions import Limit

SECONDS_MAX = 1e9
COUNT_MAX = 2**53
PORT_MAX = 65535
NOT_LESS: Mapping[str, float] = {
    "agent_kernels_max": 0,  # before kernels_max, which it ends with
    **dict.fromkeys(("hint_cycle_s", "full_cycle_s", "refresh_cycle_s", "heartbeat_s"), 0.01),
    **dict.fromkeys(("agent_silence_s", "agent_call_timeout_s", "cut_off_stop_s"), 0.01),
    **dict.fromkeys(("submit_sessions_max", "page_sessions_max", "kernels_max"), 1),
    **dict.fromkeys(("attempts_max", "body_bytes_max"), 1),
    **dict.fromkeys(("phase_s_max", "walltime_default_s"), 0.01),
}
"""With less than this, nothing would get done, or nothing else."""
SYNCHRONOUS = ("FULL", "NORMAL")
_HOST = re.compile(r"[A-Za-z0-9_:%-]{1,63}(\.[A-Za-z0-9_%-]{1,63}){0,9}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """When stages run, and how long agents may be silent."""

    hint_cycle_s: float = 2.0
    """How often a stage looks for a hint that it has work."""
    full_cycle_s: float = 60.0
    """How often a stage runs without a hint, so that a lost hint only delays."""
    agent_silence_s: float = 40.0
    """How long an agent may be silent before it is LOST."""
    refresh_cycle_s: float = 600.0
    """How often the picture of what is alive is read again from the store."""
    agent_call_timeout_s: float = 10.0
    """How long one call to an agent may take."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where and how safely things are remembered."""

    synchronous: str = "FULL"
    """SQLite's `synchronous`: FULL survives a power loss, NORMAL may lose the last moments."""
    busy_timeout_s: float = 10.0
    """How long to wait for another process that has the store locked."""


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Where the server listens, and how much it takes at once."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless you know better."""
    port: int = 0
    """Port to listen on; 0 takes a free one and writes it to `server.json`."""
    body_bytes_max: int = 64 * 1024 * 1024
    """Largest request body accepted."""
    submit_sessions_max: int = 10_000
    """Most sessions in one submission."""
    array_tasks_max: int = 10_000
    """Most tasks in one array."""
    page_sessions_max: int = 10_000
    """Most sessions in one page of a list."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent that the manager keeps on this machine."""

    name: str = "local"
    """Its name, and the name of its directory below `agents/` in the home."""
    scaling_group: str = "default"
    """The group it belongs to."""
    cpu: str = ""
    """Cores it offers, such as 4 or 0.5; empty means all of the machine's."""
    mem: str = ""
    """Memory it offers, such as 8G; empty means all of the machine's."""
    gpus: str = "auto"
    """Device indexes it offers, such as 0,1; `auto` means all found, `none` means none."""
    cgroups: str = "auto"
    """`auto` uses control groups when it may, `off` never."""
    heartbeat_s: float = 5.0
    """How often it says that it is alive, and which kernels are."""
    cut_off_stop_s: float = 270.0
    """After so long without a manager, it stops the kernels that are to be requeued elsewhere."""
    output_keep_days: float = 30.0
    """How long output is kept after a kernel's end; 0 keeps it for ever."""
    output_bytes_max: int = 1024**3
    """How much of each stream of a kernel is kept, in bytes: beyond it, the middle is dropped; 0
    keeps everything."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What constraints may name, such as `{rack = "r1"}`; see `sokovan agents label`."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Policy of one scaling group."""

    order: str = "fifo"
    """Who is looked at first among equal priorities: `fifo`, `lifo`, or `drf`, which is the owner
    with the smallest dominant share."""
    ranking: str = "useful"
    """Which agent is taken: `useful`, `concentrated`, `dispersed`, `round_robin`, `fragmentation`,
    see the concepts page on placement."""
    backfill: str = "easy"
    """What those behind one that does not fit may do: `none`, `strict`, `easy`, `conservative`."""
    walltime_default_s: float = 86_400.0
    """How long a session is expected to run that names no walltime; it may run longer."""
    ageing_s: float = 3_600.0
    """Waiting for so long raises the effective priority by 1; 0 means never."""
    pending_timeout_s: float = 0.0
    """How long a session may stay PENDING unless it says otherwise; 0 means for ever."""
    requeues_max: int = 5
    """How often a session goes back to PENDING before it is given up."""
    kernels_max: int = 64
    """Most kernels one session may have."""
    agent_kernels_max: int = 0
    """Most kernels on one agent; 0 means any number."""
    agent_grace_s: float = 300.0
    """How long after it is LOST an agent's kernels count as gone."""
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By stage name: `attempts_max` and `phase_s_max`, where they differ from the stage table."""

    def as_group(self, name: str) -> ScalingGroup:
        """Return the scaling group that this describes.

        Raises:
            ConfigError: An order, a ranking or a backfill that does not exist.
        """
        return ScalingGroup(
            name=name,
            order=_choice(QueueOrder, self.order, f"groups.{name}.order"),
            ranking=_choice(AgentRanking, self.ranking, f"groups.{name}.ranking"),
            backfill=_choice(Backfill, self.backfill, f"groups.{name}.backfill"),
            walltime_default_s=self.walltime_default_s,
            ageing_s=self.ageing_s,
            limits={
                stage: _limit(limit, f"groups.{name}.limits.{stage}")
                for stage, limit in self.limits.items()
            },
            pending_timeout_s=self.pending_timeout_s or None,
            requeues_max=self.requeues_max,
            kernels_max=self.kernels_max,
            agent_kernels_max=self.agent_kernels_max or None,
            agent_grace_s=self.agent_grace_s,
        )


DEFAULT_HOME = Path("~/.sokovan")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set."""

    home: Path = DEFAULT_HOME
    """Directory of all state; `--home`, or SOKOVAN_HOME."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    agents: tuple[AgentConfig, ...] = (AgentConfig(),)
    """The agents on this machine: `[[agents]]`, once for each."""
    groups: Mapping[str, GroupConfig] = field(default_factory=lambda: {"default": GroupConfig()})
    """The scaling groups: `[groups.NAME]`."""

    def scaling_groups(self) -> tuple[ScalingGroup, ...]:
        """Return every group, with its policy."""
        return tuple(group.as_group(name) for name, group in self.groups.items())


def home_of(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the home directory: the option, else SOKOVAN_HOME, else `~/.sokovan`, absolute.

    Raises:
        HomeError: Nobody can say which directory that is.
    """
    chosen = option or Path(environ.get("SOKOVAN_HOME") or DEFAULT_HOME)
    try:
        return chosen.expanduser().absolute()
    except (RuntimeError, OSError):  # no such user; or the current directory was removed
        raise HomeError(
            f"{chosen} leads nowhere; name a whole path with --home or SOKOVAN_HOME"
        ) from None


def load_config(home: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the settings of a home.

    Raises:
        ConfigError: The file is not TOML, or names a setting or a value that does not exist.
    """
    file = home / "config.toml"
    try:
        data = tomllib.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{file}: it is nested too deeply") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    config = replace(_build(Config, data, ""), home=home)
    config = _with_environment(config, environ)
    _check_texts(config)
    for agent in config.agents:
        _check_agent(agent)
        if agent.scaling_group not in config.groups:
            raise ConfigError(
                f"agents: {agent.name!r} is in the group {agent.scaling_group!r}, which has no"
                f" [groups.{agent.scaling_group}] section; add one"
            )
        given_up_s = (
            config.scheduler.agent_silence_s + config.groups[agent.scaling_group].agent_grace_s
        )
        if agent.cut_off_stop_s >= given_up_s:
            raise ConfigError(
                f"agents: {agent.name!r} is given up after {given_up_s:g} s of silence; make its"
                " cut_off_stop_s shorter, so that it stops what will be started elsewhere"
            )
        if agent.heartbeat_s * 2 > config.scheduler.agent_silence_s:
            raise ConfigError(
                f"agents: {agent.name!r} says that it is alive every {agent.heartbeat_s:g} s, and"
                f" counts as lost after {config.scheduler.agent_silence_s:g} s; make"
                " scheduler.agent_silence_s at least twice its heartbeat_s"
            )
    if len({agent.name for agent in config.agents}) < len(config.agents):
        raise ConfigError("agents: two agents have the same name; give each its own")
    config.scaling_groups()
    return config


def _build(kind: Any, data: Any, path: str) -> Any:
    """Make `kind` from parsed TOML, checking every name and type."""
    if is_dataclass(kind):
        if not isinstance(data, dict):
            raise ConfigError(f"{path or 'config'}: expected a table of settings")
        hints = get_type_hints(kind)
        known = {f.name for f in fields(kind)} - {"home"}
        if unknown := sorted(set(data) - known):
            raise ConfigError(
                f"{_dotted(path, unknown[0])}: no such setting;"
                f" there are {', '.join(sorted(known))}"
            )
        parts = {n: _build(hints[n], value, _dotted(path, n)) for n, value in data.items()}
        return cast("Any", kind)(**parts)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(data, list):
            raise ConfigError(f"{path}: expected a list of tables, written [[{path}]]")
        return tuple(_build(args[0], item, f"{path}[{n}]") for n, item in enumerate(data))
    if origin is not None and origin is not UnionType:  # Mapping[str, X]
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected a table")
        return {name: _build(args[1], item, _dotted(path, name)) for name, item in data.items()}
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(data, kinds) or (isinstance(data, bool) and kind is not bool):
        raise ConfigError(f"{path}: expected {_KINDS[kind]}, not {_brief(data)}")
    return _in_range(kind, data, path) if kind in {int, float} else data


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _in_range(kind: Any, number: Any, path: str) -> Any:
    said = path.lower()  # in the file, or in capitals in the environment
    least = next((least for name, least in NOT_LESS.items() if said.endswith(name)), 0)
    most = PORT_MAX if said.endswith("port") else COUNT_MAX if kind is int else SECONDS_MAX
    if not least <= number <= most:
        raise ConfigError(
            f"{path}: {_brief(number)} is out of range; it must be from {least:g} to {most:g}"
        )
    return kind(number)


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "that"
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check_texts(config: Config) -> None:
    """Agents' names become directories; those of groups are submitted, and shown."""
    if config.store.synchronous not in SYNCHRONOUS:
        raise ConfigError(
            f"store.synchronous: {_brief(config.store.synchronous)} does not exist; choose one of"
            f" {', '.join(SYNCHRONOUS)}"
        )
    if not _HOST.fullmatch(config.api.host):
        raise ConfigError(
            f"api.host: {_brief(config.api.host)} is no address; write one such as 127.0.0.1 or ::1"
        )
    names = [("agents", agent.name) for agent in config.agents]
    names += [("groups", name) for name in config.groups]
    for where, name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: {_brief(name)} is no name; write 1 to 64 letters, digits, _, - and .,"
                " the first of them not a ."
            )


def _check_agent(agent: AgentConfig) -> None:
    """Check what only the agent's process reads: it would not start, and nothing would run."""
    try:
        if agent.cpu:
            parse_milli(agent.cpu, field="cpu")
        if agent.mem:
            parse_size(agent.mem, field="mem")
        check_labels(agent.labels, field="labels")
    except InvalidRequestError as error:
        raise ConfigError(f"agents: {agent.name!r}: {error.message}") from None
    if not re.fullmatch(r"auto|none|\d{1,4}(,\d{1,4})*", agent.gpus, re.ASCII):
        raise ConfigError(
            f"agents: {agent.name!r}: gpus: {_brief(agent.gpus)} is not understood; write auto,"
            " none, or indexes such as 0,1"
        )
    if agent.cgroups not in {"auto", "off"}:
        raise ConfigError(
            f"agents: {agent.name!r}: cgroups: {_brief(agent.cgroups)} does not exist; choose one"
            " of auto, off"
        )


def _limit(given: Mapping[str, float], path: str) -> Limit:
    known = [f.name for f in fields(Limit)]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{path}.{unknown[0]}: no such setting; there are {', '.join(known)}")
    attempts_max = given.get("attempts_max")
    if attempts_max is not None and not float(attempts_max).is_integer():
        raise ConfigError(f"{path}.attempts_max: expected a whole number, not {attempts_max}")
    return Limit(None if attempts_max is None else int(attempts_max), given.get("phase_s_max"))


def _with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    for section in ("scheduler", "store", "api"):
        part = getattr(config, section)
        hints = get_type_hints(type(part))
        for f in fields(part):
            name = f"SOKOVAN_{section}_{f.name}".upper()
            if name in environ:
                part = replace(part, **{f.name: _from_text(hints[f.name], environ[name], name)})
        config = replace(config, **{section: part})
    return config


def _from_text(kind: Any, text: str, name: str) -> Any:
    if kind is bool:
        if text.lower() not in {"true", "false", "1", "0"}:
            raise ConfigError(f"{name}: expected true or false, not {text!r}")
        return text.lower() in {"true", "1"}
    try:
        return _build(kind, kind(text), name)
    except ValueError:
        raise ConfigError(f"{name}: expected {_KINDS[kind]}, not {_brief(text)}") from None


def _choice(kind: Any, text: str, path: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise ConfigError(f"{path}: {_brief(text)} does not exist; choose one of {known}") from None


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
