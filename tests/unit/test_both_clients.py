"""The client with an event loop and the one without: one source, the same methods."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from sokovan import AsyncClient, Client

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import sync_client  # noqa: E402 (it lies beside the package, not in it)


@pytest.mark.parametrize("source", sync_client.FILES)
def test_the_client_without_an_event_loop_is_written_from_the_other(source):
    there = (sync_client.CLIENT / sync_client.FILES[source]).read_text()

    assert there == sync_client.written(source), (
        f"{sync_client.FILES[source]} is written from {source}: change that, and run"
        " `python scripts/sync_client.py`"
    )


def public(kind):
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def test_both_have_the_same_methods_with_the_same_parameters_and_the_same_words():
    ours, theirs = public(Client), public(AsyncClient)

    assert ours.keys() == theirs.keys()
    for name, method in ours.items():
        if inspect.isfunction(method):
            other = theirs[name]
            assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other), name
            assert not inspect.iscoroutinefunction(method), name
            parameters = inspect.signature(method).parameters
            assert parameters == inspect.signature(other).parameters, name
            assert method.__doc__ == other.__doc__, name


def test_the_package_imports_nothing_until_a_name_is_used():
    look = "import sys, sokovan; print('httpx' in sys.modules, 'Client' in dir(sokovan))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]
