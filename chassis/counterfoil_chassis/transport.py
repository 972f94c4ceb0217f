"""TLS: who a process proves to be, whom it believes, and certificates that are changed while it runs.

Between services both sides show a certificate of one authority, and a certificate names its service (a DNS name such as
`ingest` among its alternative names): a caller insists on the name of the service that it means to reach, whatever its
address, and a callee on the name of the service that a token was signed by.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc

from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import PermissionDeniedError, StartError
from counterfoil_chassis.health import Read
from counterfoil_chassis.settings import ServiceSettings

EXPIRES_SOON: Final = timedelta(days=14)
"""So long before its end a certificate is a failing check."""


class PeerMismatchError(PermissionDeniedError):
    """The certificate of the connection does not name the service that signed the token."""

    reason = "PEER_MISMATCH"


@dataclass(frozen=True)
class Pem:
    """What the files hold: a certificate with its chain, its private key, the authority that peers are judged by."""

    certificate: bytes
    key: bytes
    authority: bytes | None


class Certificate:
    """The files of one certificate, read anew when they change; `authority` is needed where both sides show one."""

    def __init__(self, certificate: Path, key: Path, authority: Path | None = None) -> None:
        """Read the files once; raise StartError when one cannot be used."""
        self._files = [each for each in (certificate, key, authority) if each is not None]
        self._certificate, self._key, self._authority = certificate, key, authority
        self._seen = self._versions()
        self.pem = self._read()
        self._loaded = self.pem.certificate

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC server takes; with an authority it refuses whoever shows no certificate of it.

        gRPC asks at each handshake, so that files that were changed count for the next connection.
        """
        mutual = self.pem.authority is not None
        changed: Any = self._changed  # may return None, which the stubs forget
        return grpc.dynamic_ssl_server_credentials(self._configuration(), changed, mutual)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel takes; it keeps the files' content of this moment."""
        return grpc.ssl_channel_credentials(self.pem.authority, self.pem.key, self.pem.certificate)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have connections from now on use the files, where they can be used."""
        if self.renew():
            context.load_cert_chain(self._certificate, self._key)

    def renew(self) -> bool:
        """Read the files if they have changed; return whether there is something new that can be used."""
        try:
            versions = self._versions()
            if versions == self._seen:
                return False
            self.pem = self._read()
        except StartError:
            return False  # half written, most likely: the next look finds them whole
        self._seen = versions
        return True

    def check(self, clock: Clock, *, channels: bool) -> Read:
        """Return the check of the dates; with `channels`, also whether this process still shows an earlier one."""

        def read() -> str:
            ends = expiry(self.pem.certificate)
            if ends - clock.now() < EXPIRES_SOON:
                return f"the certificate {self._certificate.name} ends on {ends:%Y-%m-%d}; put a new one in its place"
            if channels and self.pem.certificate != self._loaded:
                return "the certificate was changed: restart this process, whose channels show the one before"
            return ""

        return read

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pem = self.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authority)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        return self._configuration() if self.renew() else None

    def _versions(self) -> list[tuple[int, int]]:
        try:
            found = [each.stat() for each in self._files]
        except OSError as error:
            raise StartError(
                f"the file {error.filename} of the TLS settings cannot be read: {error.strerror}"
            ) from None
        return [(each.st_mtime_ns, each.st_size) for each in found]

    def _read(self) -> Pem:
        try:
            certificate, key = self._certificate.read_bytes(), self._key.read_bytes()
            authority = self._authority.read_bytes() if self._authority else None
            expiry(certificate)
            # Loads both, and fails when the key is another certificate's.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            if authority is not None:
                expiry(authority)
        except OSError as error:
            raise StartError(f"{self._certificate} and {self._key} cannot be used for TLS: {error}") from None
        except ValueError:
            raise StartError(f"{self._certificate} or its authority is not a certificate in PEM form") from None
        return Pem(certificate, key, authority)


def certificate_of(settings: ServiceSettings) -> Certificate | None:
    """Return what the settings have a process show to the other services, None without TLS; raise StartError."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return Certificate(settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file)


def expiry(certificate: bytes) -> datetime:
    """Return when the first certificate of a PEM text ends; raise ValueError when there is none."""
    from cryptography import x509  # noqa: PLC0415 - a tenth of the start, for those alone who use TLS

    return x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc.astimezone(UTC)


def names(certificate: bytes) -> Sequence[str]:
    """Return the DNS names of the first certificate of a PEM text."""
    from cryptography import x509  # noqa: PLC0415 - see above

    found = x509.load_pem_x509_certificates(certificate)[0]
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return extension.value.get_values_for_type(x509.DNSName)


def require_peer(service: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Raise PeerMismatchError unless the connection's certificate names the service."""
    shown = context.auth_context().get("x509_subject_alternative_name", ())
    if service.encode() not in shown:
        raise PeerMismatchError(
            f"a token of {service} came by a certificate without its name; give {service} a certificate that has it",
            metadata={"service": service},
        )
