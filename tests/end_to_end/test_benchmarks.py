"""The benchmarks run, two on both databases; what they measure is for a quiet machine to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "throughput": ("--sessions 8 --rounds 1 --finished 20", "of_wrapper"),
    "latency": ("-n 2", "to_start_ms"),
    "submitting": ("--sessions 50 --rounds 1 --settle 0", "accepted_s"),
    "clients": ("--clients 3 --seconds 0.2 --rounds 1", "accepted_per_s"),
    "memory": ("--waiting 50 --settle 0", "mib_restarted"),
    "starting": ("--live 10 --finished 20 --rounds 1", "ready_s"),
}


@pytest.mark.parametrize(
    ("name", "db"),
    [
        *((name, "sqlite") for name in SMALL),
        *(
            pytest.param(name, "postgresql", marks=pytest.mark.postgres)
            for name in ("throughput", "starting")
        ),
    ],
)
def test_a_benchmark_reports_what_it_is_for_and_its_conditions(name, db):
    options, figure = SMALL[name]

    done = subprocess.run(
        [sys.executable, ROOT / f"benchmarks/{name}.py", *options.split(), "--db", db, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said[figure]
    assert said["conditions"]["db"].lower().startswith(db)
