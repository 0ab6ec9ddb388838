"""Whatever comes over an agent's socket, on either side, the next connection is served."""

import asyncio
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sokovan.agent import wire
from sokovan.agent.agent import Agent
from sokovan.agent.frames import SOCKET, at_directory
from sokovan.agent.server import Server
from sokovan.agent.timers import Timers
from sokovan.agent.wire import WireError
from sokovan.clock import ManualClock
from sokovan.cluster.link import Link, open_link
from sokovan.config import AgentConfig
from sokovan.domain.errors import AgentError
from sokovan.domain.labels import check_labels
from sokovan.domain.resources import Capacity, Device
from sokovan.scheduler.messages import AgentHello, KernelReport
from sokovan.simulator.runtime import FakeRuntime
from tests.build import A1, NOW, an_agent_hello
from tests.fuzz.ground import HastyLoop

WORDS = st.text(max_size=20) | st.sampled_from(["hello", "welcome", "ack", "ENDED", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)
OPS = ["hello", "welcome", "ack", "seen", "start", "prepare", "stop", "states", "read", "reports"]
FRAMES = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "op": st.sampled_from([*OPS, "heartbeat", "nonsense"]) | VALUES,
        **dict.fromkeys(
            ["reports", "tokens", "kernels", "token", "stream", "offset", "hello", "config"], VALUES
        ),
    },
)
LINES = (
    st.binary(max_size=200)
    | FRAMES.map(lambda frame: json.dumps(frame).encode())
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[" * 100_000, b'{"op":"ack","reports":[["t","ENDED",1e999]]}', b"\xff"])
)
SPOKEN = st.lists(LINES, max_size=5).map(b"\n".join)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="sok-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def in_a_hasty_loop(work: Any) -> list[Any]:
    """Run, and return what the loop complained about."""
    clock = ManualClock(NOW)
    loop = HastyLoop(clock)
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        loop.run_until_complete(work(clock))
        loop.run_until_complete(asyncio.sleep(1.0))  # so that everything is closed
    finally:
        loop.close()
    return complaints


async def an_agent(directory: Path, clock: ManualClock) -> Server:
    timers = Timers(clock)
    agent = Agent(
        an_agent_hello(),
        config=AgentConfig(),
        runtime=FakeRuntime(clock, timers),
        clock=clock,
        timers=timers,
    )
    server = Server(
        agent, directory, timers=timers, heartbeat_s=5.0, config={}, leave=lambda why: None
    )
    await server.open()
    return server


async def converse(directory: Path, spoken: bytes) -> None:
    """Speak to whoever listens, hear the answers, and hang up."""
    with at_directory(directory) as short:
        reader, writer = await asyncio.open_unix_connection(f"{short}/{SOCKET}")
    writer.write(spoken + b"\n")
    try:
        async with asyncio.timeout(1.0):
            while await reader.read(65536):
                pass
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    await asyncio.sleep(0)


def visited(directory: Path, spoken: bytes) -> list[Any]:
    """Let a stranger speak to an agent, then a manager."""

    async def visit(clock: ManualClock) -> None:
        server = await an_agent(directory, clock)
        await converse(directory, spoken)

        link = await open_link(directory)
        link.welcome(7)
        assert await link.ask("states", tokens=["unheard-of"]) == [["unheard-of", "UNKNOWN"]]
        link.close()
        await server.close()

    return in_a_hasty_loop(visit)


def listened(directory: Path, spoken: bytes, *, greets: bool) -> list[Any]:
    """Let a manager listen to a stranger, then to an agent."""
    hello = {"op": "hello", "hello": wire.encode_hello(an_agent_hello()), "config": {}}

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((json.dumps(hello).encode() + b"\n") * greets + spoken + b"\n")
        await reader.read(1)
        writer.close()

    async def listen(clock: ManualClock) -> None:
        (directory / SOCKET).unlink(missing_ok=True)
        with at_directory(directory) as short:
            liar = await asyncio.start_unix_server(speak, f"{short}/{SOCKET}")
        await heard(directory)
        liar.close()

        server = await an_agent(directory, clock)
        link = await open_link(directory)
        assert link.hello.agent_id == A1
        link.close()
        await server.close()

    return in_a_hasty_loop(listen)


async def heard(directory: Path) -> Link | None:
    """Connect and ask, as a manager does; an `AgentError` is what it expects of a liar."""
    try:
        async with asyncio.timeout(5.0):
            link = await open_link(directory)
            try:
                link.take()
                await link.ask("states", tokens=[])
            finally:
                link.close()
    except (AgentError, TimeoutError):
        return None
    return link


@given(SPOKEN)
def test_an_agent_answers_the_next_manager_whatever_one_has_said(directory, spoken):
    visited(directory, spoken)


@given(SPOKEN, st.booleans())
def test_a_manager_hears_the_next_agent_whatever_one_has_said(directory, spoken, greets):
    listened(directory, spoken, greets=greets)


def test_an_acknowledgement_of_infinity_is_refused_without_a_traceback(directory):
    spoken = b'{"op":"ack","reports":[["t","ENDED",1e999]]}'

    assert visited(directory, spoken) == []


def test_a_deep_frame_is_hung_up_on_without_a_traceback(directory):
    assert listened(directory, b"[" * 100_000, greets=True) == []


# --- what is made of one value --------------------------------------------------------------------

REPORTS = st.lists(VALUES, max_size=9).map(lambda rest: ["token", "ENDED", *rest][: 2 + len(rest)])


def is_sound(value: object) -> bool:
    """Say whether every database and every later reader can take it."""
    match value:
        case bool() | None:
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case str():
            return value.isascii() or value.encode("utf-8", "replace").decode() == value
        case tuple():
            return all(is_sound(item) for item in value)
        case dict():
            return all(is_sound(item) for pair in value.items() for item in pair)
        case KernelReport() | AgentHello() | Capacity() | Device():
            return all(is_sound(getattr(value, name)) for name in value.__dataclass_fields__)
    return False


@given(REPORTS)
@example(["t", "ENDED", float("inf")])
@example(["t", "ENDED", 2**70])
@example(["t", "ENDED", 1, None, "\ud800"])
def test_a_report_is_sound_or_refused(row):
    try:
        report = wire.decode_report(row)
    except WireError:
        return
    assert is_sound(report)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(wire.encode_hello(an_agent_hello()), VALUES))
)
@example({"cpu_milli": -1})
@example({"mem_bytes": 2**80})
@example({"devices": [[None]]})
@example({"devices": ["ab"]})
@example({"devices": [[0], [0]]})
@example({"name": "\ud800"})
@example({"labels": None})
@example({"labels": {"rack": 1}})
@example({"labels": {"rack": "\ud800"}})
@example({"labels": {"cpu": "1"}})
@example({"labels": {f"a{n}": "1" for n in range(101)}})
def test_a_hello_is_sound_or_refused(changes):
    data = {**wire.encode_hello(an_agent_hello()), **changes}
    try:
        hello = wire.decode_hello(data)
    except WireError:
        return
    devices = hello.capacity.devices
    assert is_sound(hello)
    check_labels(hello.labels, field="labels")
    assert min(hello.capacity.cpu_milli, hello.capacity.mem_bytes) >= 0
    assert all(type(device.index) is int and device.index >= 0 for device in devices)
    assert len({device.index for device in devices}) == len(devices)


@given(st.floats() | st.integers() | VALUES)
@example(10**400)
def test_an_order_to_stop_is_sound_or_refused(grace_s):
    try:
        order = wire.decode_stop({"token": "t", "grace_s": grace_s, "force": False})
    except WireError:
        return
    assert 0 <= order.grace_s < math.inf
