"""What every test gets: Hypothesis profiles, and no network beyond this machine."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgresql import Server

# No deadline anywhere: how fast the machine is today must not decide what is correct.
ALWAYS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", ALWAYS, max_examples=30)
settings.register_profile("ci", ALWAYS, max_examples=60, print_blob=True)
settings.register_profile("nightly", ALWAYS, max_examples=5_000, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator["Server"]:
    """Start a PostgreSQL server for all tests of this process that ask for one."""
    from tests.postgresql import Server

    server = Server()
    yield server
    server.close()


ON_BOTH = {
    *("test_api", "test_api_arrays", "test_api_events", "test_api_sorting", "test_api_values"),
    *("test_api_where", "test_tokens", "test_webhooks"),
}
"""The modules of `unit` whose tests are run with both databases: what can differ between them is
asked for there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of some modules with both databases."""
    path = metafunc.definition.path
    if path.parent.name == "unit" and path.stem in ON_BOTH:
        kinds = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
        metafunc.parametrize("_kind_of_store", kinds, indirect=True)


@pytest.fixture(autouse=True)
def _kind_of_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have `tests.build` open its databases where the parameter says: SQLite, or PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield
        return
    from tests.build import stores_on

    with stores_on(request.getfixturevalue("postgresql")):
        yield


@pytest.fixture(scope="session", autouse=True)
def _only_this_machine() -> Iterator[None]:
    """Refuse connections that leave this machine: a test that needs one is broken elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        yield


def _guarded(connect):
    def connect_here(self, address):
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address[0]):
            message = (
                f"a test tried to reach {address[0]}:{address[1]}; tests may only use 127.0.0.1, "
                "::1 and Unix sockets, so start what you need on this machine instead"
            )
            raise AssertionError(message)
        return connect(self, address)

    return connect_here


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
