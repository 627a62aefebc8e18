"""TLS of the listeners: one certificate, and client certificates where an authority for them is set."""

from __future__ import annotations

import ssl

from tollkeeper.errors import SetupError
from tollkeeper.settings import Settings


def server_tls(settings: Settings) -> ssl.SSLContext:
    """The context of a TLS listener, TLS 1.2 or newer.

    Raises:
        SetupError: a file is not set, not there, or not what it should be.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        raise SetupError(
            "A TLS listener needs a certificate; set tls_certificate and tls_key to PEM files."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"The certificate {settings.tls_certificate} and key {settings.tls_key} cannot be used "
            f"({error}); set tls_certificate and tls_key to PEM files that belong together."
        ) from error
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(
                f"The authorities in {settings.tls_client_ca} cannot be used ({error}); set "
                "tls_client_ca to a PEM file."
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
