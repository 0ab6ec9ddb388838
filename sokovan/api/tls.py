"""TLS of the server: its certificate, and how commands of the same home know it again."""

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sokovan.config import Config
from sokovan.domain.errors import ConfigError

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tls:
    """What the server needs to answer over TLS, tried out."""

    context: ssl.SSLContext
    certificate: str
    """The server's own, without its chain, in PEM."""
    names: tuple[str, ...]
    """The names and addresses that the certificate is for."""

    @classmethod
    def of(cls, config: Config) -> Self | None:
        """Return what the settings say, or `None` where they say nothing of TLS.

        Raises:
            ConfigError: A file cannot be read, or no client would accept what is in it.
        """
        if not config.api.tls_cert_file:
            return None
        cert, key = (
            config.home / Path(name).expanduser()
            for name in (config.api.tls_cert_file, config.api.tls_key_file)
        )
        certificate = _first_certificate(_read("api.tls_cert_file", cert), cert)
        _read("api.tls_key_file", key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Asked for a passphrase, a server in the background could only hang.
            context.load_cert_chain(cert, key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"api.tls_key_file: {key} is not the private key of {cert}, in PEM and without a"
                f" passphrase: {_said(error)}"
            ) from None
        return cls(context, certificate, _names(context, certificate, cert))

    def name_for(self, host: str) -> str | None:
        """Return the name to check the certificate for at `host`, where it is not for `host`."""
        if host in self.names:
            return None
        return self.names[0].replace("*", "any")  # a name that the pattern is for, not the pattern


def _read(setting: str, path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from None


def _first_certificate(text: str, path: Path) -> str:
    """Return the first certificate of a file, which is the server's own."""
    found = _PEM.search(text)
    if found is None:
        raise ConfigError(f"api.tls_cert_file: {path} holds no certificate in PEM")
    return found[0] + "\n"


def _names(server: ssl.SSLContext, certificate: str, path: Path) -> tuple[str, ...]:
    """Shake hands with ourselves, as commands of this home will, and return whom it is for.

    Raises:
        ConfigError: They would refuse it: it is out of date, or damaged.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(cadata=certificate)
        ends = [
            client.wrap_bio(to_client, to_server),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        under_way = list(ends)
        while under_way:
            for end in list(under_way):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                under_way.remove(end)
        found: Any = ends[0].getpeercert()
    except ssl.SSLError as error:
        raise ConfigError(
            f"api.tls_cert_file: {path} would be refused by every client: {_said(error)}"
        ) from None
    names = tuple(
        name if kind == "DNS" else str(ipaddress.ip_address(name.strip()))
        for kind, name in found.get("subjectAltName", ())
        if kind in {"DNS", "IP Address"}
    )
    if not names:
        raise ConfigError(
            f"api.tls_cert_file: {path} is for no name or address; make one with a subjectAltName"
        )
    return names


def _said(error: Exception) -> str:
    return getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
