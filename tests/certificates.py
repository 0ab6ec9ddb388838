"""Certificates for tests, made when they are needed."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


def a_certificate(directory: Path, *names: str, days: int = 2) -> dict[str, str]:
    """Make a self-signed certificate and its key; return the settings that name them.

    Args:
        directory: Where the files are put.
        names: Whom it is for, such as `DNS:localhost` or `IP:127.0.0.1`.
        days: How long it counts; less than 0, it is out of date.
    """
    cert, key, request = (str(directory / name) for name in ("cert.pem", "key.pem", "request.pem"))
    whom = ["-addext", f"subjectAltName={','.join(names)}"] if names else []
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["req", "-new", *kind, "-subj", "/CN=sokovan", *whom, "-keyout", key, "-out", request]
    counts = ["-days", str(days), "-copy_extensions", "copy", "-out", cert]
    signed = ["x509", "-req", "-in", request, "-signkey", key, *counts]
    for command in (made, signed):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return {"tls_cert_file": cert, "tls_key_file": key}


def as_toml(settings: dict[str, str]) -> str:
    """Write settings below `[api]`."""
    return "\n".join(["[api]", *(f"{name} = {value!r}" for name, value in settings.items()), ""])
