"""A certificate that no client would accept is refused at the server's start, by its setting."""

import re

import pytest

from sokovan import manager
from sokovan.api.tls import Tls
from sokovan.config import ApiConfig, Config
from sokovan.domain.errors import ConfigError
from tests.certificates import a_certificate, needs_openssl

pytestmark = needs_openssl


def tls_of(home, **settings):
    return Tls.of(Config(home=home, api=ApiConfig(**settings)))


def test_a_certificate_is_found_below_the_home_with_the_names_it_is_for(tmp_path):
    a_certificate(tmp_path, "DNS:localhost", "DNS:*.example.org", "IP:127.0.0.1", "IP:::1")

    tls = tls_of(tmp_path, tls_cert_file="cert.pem", tls_key_file="key.pem")

    assert tls.names == ("localhost", "*.example.org", "127.0.0.1", "::1")
    assert tls.name_for("::1") is None
    assert tls.certificate == (tmp_path / "cert.pem").read_text()


def test_a_certificate_for_another_host_is_checked_for_its_own_name(tmp_path):
    tls = tls_of(tmp_path, **a_certificate(tmp_path, "DNS:*.example.org"))

    assert tls.name_for("127.0.0.1") == "any.example.org"


@pytest.mark.parametrize(
    ("listens_on", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("box.example.org", "http://box.example.org:80"),
    ],
)
def test_commands_here_are_told_an_address_that_they_can_reach(listens_on, address):
    assert manager._address(manager._reached_at(listens_on), 80, None) == address


def test_without_the_settings_there_is_no_tls(tmp_path):
    assert tls_of(tmp_path) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_cert_file": "none.pem"}, "tls_cert_file: {}/none.pem cannot be read: No such file"),
        ({"tls_key_file": "none.pem"}, "tls_key_file: {}/none.pem cannot be read: No such file"),
        ({"tls_cert_file": "key.pem"}, "tls_cert_file: {}/key.pem holds no certificate in PEM"),
        ({"tls_key_file": "cert.pem"}, "tls_key_file: {}/cert.pem is not the private key of"),
        ({"tls_key_file": "locked.pem"}, "tls_key_file: {}/locked.pem is not the private key of"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_named(tmp_path, settings, said):
    made = a_certificate(tmp_path, "DNS:localhost")
    (tmp_path / "locked.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )

    with pytest.raises(ConfigError, match=re.escape("api." + said.format(tmp_path))):
        tls_of(tmp_path, **made | settings)


@pytest.mark.parametrize(
    ("names", "days", "said"),
    [
        (("DNS:localhost",), -1, "would be refused by every client: certificate has expired"),
        ((), 2, "is for no name or address; make one with a subjectAltName"),
    ],
)
def test_a_certificate_that_every_client_refuses_is_refused_at_once(tmp_path, names, days, said):
    with pytest.raises(ConfigError, match=said):
        tls_of(tmp_path, **a_certificate(tmp_path, *names, days=days))
