"""Settings: a tree of frozen dataclasses, read from `config.toml` in the home and the environment.

A setting `scheduler.hint_cycle_s` is `hint_cycle_s` below `[scheduler]` in the file, and
`SOKOVAN_SCHEDULER_HINT_CYCLE_S` in the environment, which wins.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.errors import ConfigError, HomeError, InvalidRequestError
from sokovan.domain.labels import check_labels
from sokovan.domain.quantities import parse_milli, parse_size
from sokovan.domain.sessions import Limit
from sokovan.settings import Reader, brief

NOT_LESS: Mapping[str, float] = {
    "agent_kernels_max": 0,  # before kernels_max, which it ends with
    **dict.fromkeys(("hint_cycle_s", "full_cycle_s", "refresh_cycle_s", "heartbeat_s"), 0.01),
    **dict.fromkeys(("agent_silence_s", "agent_call_timeout_s", "cut_off_stop_s"), 0.01),
    **dict.fromkeys(("submit_sessions_max", "page_sessions_max", "kernels_max"), 1),
    **dict.fromkeys(("attempts_max", "body_bytes_max"), 1),
    **dict.fromkeys(("webhook_timeout_s", "webhook_retry_s_max"), 0.01),
    "lease_s": 0.5,
    **dict.fromkeys(("phase_s_max", "walltime_default_s"), 0.01),
    "answer_s_max": 0.1,
}
"""With less than this, nothing would get done, or nothing else."""
FILE_NAME = "config.toml"
DATABASE_FILE = "database"
"""In the home: the `store.url` that `up --db` or `db move` has left; the settings win."""
SYNCHRONOUS = ("FULL", "NORMAL")
ALLOW_ROOT = ("auto", "yes", "no")
_PASSWORDS = re.compile(r"(://[^:/@]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")
_HOST = re.compile(r"[A-Za-z0-9_:%-]{1,63}(\.[A-Za-z0-9_%-]{1,63}){0,9}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
"""How the names of agents and of groups look."""


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

    url: str = field(default="", repr=False)  # it may have a password
    """A PostgreSQL database, such as `postgresql://user@host:5432/name`; empty is the file
    `sokovan.db` in the home."""
    synchronous: str = "FULL"
    """FULL survives a power loss, NORMAL may lose the last moments; on either database."""
    busy_timeout_s: float = 10.0
    """How long to wait for another process that has the store locked."""
    lease_s: float = 10.0
    """On PostgreSQL: how long a manager must have been silent before another one takes over."""
    keep_days: float = 0.0
    """How long sessions and their history are kept after their end; 0 keeps them for ever."""
    answer_s_max: float = 30.0
    """How long PostgreSQL may take for one answer; then it is asked again, over a connection that
    is made anew."""
    wait_s: float = 60.0
    """How long `sokovan up` waits for a PostgreSQL that is away; 0 does not wait."""


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
    requests_per_s_max: int = 2000
    """Most requests of one user in a second, on average, 5 s' worth at once; 0 is no limit."""
    tls_cert_file: str = ""
    """Certificate, with its chain, in PEM; empty means no TLS. A relative path begins in
    the home."""
    tls_key_file: str = ""
    """The certificate's private key, in PEM, without a passphrase."""
    event_streams_max: int = 100
    """Most event streams that are open at once; who asks for one more is told to come later."""
    webhook_timeout_s: float = 10.0
    """How long one message to a webhook may take."""
    webhook_retry_s_max: float = 900.0
    """Longest pause between the tries of a webhook that fails."""


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
    allow_root: str = "auto"
    """Whether sessions of root run on an agent that runs as root: `yes` runs them, `no` never;
    `auto` does while nobody but root has a token."""
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
    file = home / FILE_NAME
    try:
        data = tomllib.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{file}: it is nested too deeply") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    reader = Reader(NOT_LESS)
    config = replace(reader.table(Config, data), home=home)
    config = reader.with_environment(config, environ)
    if not config.store.url:
        config = replace(config, store=replace(config.store, url=_remembered(home)))
    _check_texts(config)
    for agent in config.agents:
        _check_agent(agent)
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


def _remembered(home: Path) -> str:
    """Return the address of the database that this home was last told to use."""
    try:
        return (home / DATABASE_FILE).read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{home / DATABASE_FILE}: cannot be read: {error}") from error


def without_password(url: str) -> str:
    """Return the address of a database with *** for its password, to be shown."""
    return _PASSWORDS.sub(r"\1\2***", url)


def _check_texts(config: Config) -> None:
    """Agents' names become directories; those of groups are submitted, and shown."""
    if config.store.synchronous not in SYNCHRONOUS:
        raise ConfigError(
            f"store.synchronous: {brief(config.store.synchronous)} does not exist; choose one of"
            f" {', '.join(SYNCHRONOUS)}"
        )
    if not _HOST.fullmatch(config.api.host):
        raise ConfigError(
            f"api.host: {brief(config.api.host)} is no address; write one such as 127.0.0.1 or ::1"
        )
    if bool(config.api.tls_cert_file) != bool(config.api.tls_key_file):
        given, lacks = "tls_cert_file", "tls_key_file"
        if config.api.tls_key_file:
            given, lacks = lacks, given
        raise ConfigError(f"api.{lacks}: it is needed beside api.{given}; set both, or neither")
    names = [("agents", agent.name) for agent in config.agents]
    names += [("groups", name) for name in config.groups]
    for where, name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: {brief(name)} is no name; write 1 to 64 letters, digits, _, - and .,"
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
            f"agents: {agent.name!r}: gpus: {brief(agent.gpus)} is not understood; write auto,"
            " none, or indexes such as 0,1"
        )
    if agent.cgroups not in {"auto", "off"}:
        raise ConfigError(
            f"agents: {agent.name!r}: cgroups: {brief(agent.cgroups)} does not exist; choose one"
            " of auto, off"
        )
    if agent.allow_root not in ALLOW_ROOT:
        raise ConfigError(
            f"agents: {agent.name!r}: allow_root: {brief(agent.allow_root)} does not exist; choose"
            f" one of {', '.join(ALLOW_ROOT)}"
        )


def _limit(given: Mapping[str, float], path: str) -> Limit:
    known = [f.name for f in fields(Limit)]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{path}.{unknown[0]}: no such setting; there are {', '.join(known)}")
    attempts_max = given.get("attempts_max")
    if attempts_max is not None and not float(attempts_max).is_integer():
        raise ConfigError(f"{path}.attempts_max: expected a whole number, not {attempts_max}")
    return Limit(None if attempts_max is None else int(attempts_max), given.get("phase_s_max"))


def _choice(kind: Any, text: str, path: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise ConfigError(f"{path}: {brief(text)} does not exist; choose one of {known}") from None
