"""The public types, as mypy shows them to a user."""

from pathlib import Path

import pytest
from mypy import api

USER_CODE = Path(__file__).parent / "user_code.py"


@pytest.mark.slow
def test_the_types_of_the_package_are_what_a_user_relies_on(tmp_path):
    # An ignore that ignores nothing is an error, too: each of them is a mistake to be found.
    strict = ["--strict", "--config-file=", "--python-version=3.11", f"--cache-dir={tmp_path}"]
    out, err, code = api.run([*strict, "--follow-imports=silent", str(USER_CODE)])

    assert (out, err, code) == ("Success: no issues found in 1 source file\n", "", 0)
