"""The listener's certificate: read when the configuration is, so that a wrong one is told with its key, and once more to serve.

What is served is what Python thinks fit for servers (TLS 1.2 and later), and HTTP/1.1 only.
"""

import ssl
from pathlib import Path

from runtime.config.settings import TlsFiles


class BadTls(ValueError):
    """Certificate or key cannot be used. ``key`` says which of the two; the text says why, and nothing of what is in it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"server.tls.{key}: {message}")
        self.key = key
        self.message = message


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a listener needs to speak TLS. Raises ``BadTls``."""
    for key, path in (("certificate", files.certificate), ("key", files.key)):
        _check_readable(key, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password given, an encrypted key would be asked for at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except _Encrypted:
        raise BadTls("key", "is encrypted with a password; give one that is not") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadTls("key", "does not belong to the certificate") from None
        raise BadTls("certificate", "is no certificate, or its key is none (both PEM)") from None
    return context


class _Encrypted(Exception):
    """A password was asked for."""


def _no_password() -> str:
    raise _Encrypted


def _check_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise BadTls(key, f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:
        # A path with NUL in it.
        raise BadTls(key, "cannot be read") from None
