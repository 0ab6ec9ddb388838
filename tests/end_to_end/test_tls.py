"""A real server behind TLS: who is told its certificate talks to it, and nobody else."""

import json
import socket
import ssl

import pytest

from tests.certificates import a_certificate, as_toml, needs_openssl
from tests.end_to_end.test_command import Place

pytestmark = [pytest.mark.real, pytest.mark.slow, needs_openssl]


@pytest.fixture
def own():
    place = Place()
    yield place
    place.clean_up()


def certificate_of(url):
    host, _, port = url.removeprefix("https://").rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_commands_trust_the_certificate_of_their_server_and_no_other(own, tmp_path):
    settings = a_certificate(own.path, "DNS:localhost", "IP:127.0.0.1")
    (own.path / "config.toml").write_text(as_toml(settings | {"host": "0.0.0.0"}))

    assert own("run", "--", "echo", "hi").stdout == "hi\n"
    announced = json.loads((own.path / "server.json").read_text())
    assert announced["url"].startswith("https://127.0.0.1:")
    assert certificate_of(announced["url"]) == (own.path / "cert.pem").read_text()

    # The files may be replaced while the server runs: what it has still counts.
    a_certificate(own.path, "DNS:localhost", "IP:127.0.0.1")
    assert own.json("status")["address"] == announced["url"]

    a_certificate(tmp_path, "DNS:localhost", "IP:127.0.0.1")
    (own.path / "server.crt").write_text((tmp_path / "cert.pem").read_text())
    refused = own("ls", code=5).stderr
    assert "cannot prove that it is the server" in refused
    assert "self-signed certificate" in refused

    (own.path / "server.crt").write_text(certificate_of(announced["url"]))
    (own.path / "server.json").write_text(json.dumps(announced | {"tls_name": "example.org"}))
    assert "certificate is not valid for 'example.org'" in own("ls", code=5).stderr

    (own.path / "server.json").write_text(json.dumps(announced))
    # From elsewhere: the certificate is handed over, and another one is not good enough.
    elsewhere = {
        "SOKOVAN_URL": announced["url"].replace("127.0.0.1", "localhost"),
        "SOKOVAN_TOKEN": (own.path / "token").read_text().strip(),
        "SOKOVAN_CA_FILE": str(own.path / "server.crt"),
    }
    assert own("ls", "-a", env=elsewhere).stdout.startswith("ID")
    elsewhere["SOKOVAN_CA_FILE"] = str(tmp_path / "cert.pem")
    assert "cannot prove that it is the server" in own("ls", env=elsewhere, code=5).stderr

    own("down")
    assert not (own.path / "server.crt").exists()


def test_a_certificate_for_the_name_of_this_machine_serves_its_own_commands_too(own):
    settings = a_certificate(own.path, "DNS:box.example.org")
    (own.path / "config.toml").write_text(as_toml(settings))

    assert own.json("ls") == []
    host, _, port = own.json("status")["address"].removeprefix("https://").rpartition(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/"), "it answers without TLS as well"


def test_a_server_with_a_broken_key_does_not_start_and_one_without_tls_warns(own):
    settings = a_certificate(own.path, "DNS:localhost")
    (own.path / "key.pem").write_text("no key")
    (own.path / "config.toml").write_text(as_toml(settings))

    said = own("ls", code=5).stderr

    assert f"api.tls_key_file: {own.path}/key.pem is not the private key" in said
    assert "[invalid-config]" in said

    (own.path / "config.toml").write_text(as_toml({"host": "0.0.0.0"}))
    assert own.json("ls") == []
    assert "in the clear" in (own.path / "server.log").read_text()
