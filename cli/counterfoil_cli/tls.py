"""How the command line knows a gateway that speaks TLS."""

import ssl
from pathlib import Path

from counterfoil_chassis.errors import StartError


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Return what accepts the certificates of an authority, by default of those that the machine trusts."""
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise StartError(f"{authority} cannot be used as an authority's certificate: {error}.") from error


def pinned(certificate: Path) -> ssl.SSLContext:
    """Return what accepts this very certificate under any name: that of a gateway of our own, by a loopback address."""
    context = trusting(certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's to be the end of the chain
    return context
