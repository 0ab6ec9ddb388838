"""A command that only asks the server imports nothing that only the server needs."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "alembic",
    "asyncio",
    "fastapi",
    "numpy",
    "psutil",
    "pydantic",
    "pynvml",
    "sqlalchemy",
    "starlette",
    "structlog",
    "uvicorn",
    "uvloop",
}
OF_THE_SERVER = {
    f"sokovan.{name}"
    for name in (
        "agent",
        "api",
        "clock",
        "cluster",
        "manager",
        "placement",
        "scheduler",
        "simulator",
        "store",
    )
}
LIST_MODULES = """
import json, sys
from sokovan.cli.main import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(*argv):
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *argv], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["status"], 5),
        (["down"], 0),
        (["config"], 0),
        (["--version"], 0),
        (["run", "--help"], 0),
        (["agents", "drain", "--help"], 0),
        (["agents", "label", "--help"], 0),
        (["db", "check", "--help"], 0),
        (["doctor", "--help"], 0),
    ],
)
def test_a_command_imports_no_server(tmp_path, argv, code):
    found, modules = modules_after("--home", str(tmp_path), *argv)

    assert found == code
    assert not {name for name in modules if name.split(".")[0] in HEAVY}
    assert not {name for name in modules if ".".join(name.split(".")[:2]) in OF_THE_SERVER}


def test_a_list_waits_for_no_library_that_only_draws(tmp_path):
    _, modules = modules_after("--home", str(tmp_path), "status")

    assert not {name for name in modules if name.split(".")[0] in {"rich", "pygments"}}


def test_nothing_that_a_command_may_import_needs_the_server():
    every = """
import json, sys
import sokovan.client.sync_client, sokovan.config, sokovan.sources
from sokovan.cli import agents, attend, completion, config, db, describe, explained, machine
from sokovan.cli import outputs, parsing, server, sessions, streams, submit, text
from sokovan.cli import asked, examples, jobfile, picture, progress, screen, start, top
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", every], capture_output=True, text=True, check=True)

    modules = set(json.loads(done.stdout))
    assert not {name for name in modules if name.split(".")[0] in HEAVY}
    assert not {name for name in modules if ".".join(name.split(".")[:2]) in OF_THE_SERVER}
