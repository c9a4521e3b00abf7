"""A certificate for ``localhost`` that signs itself, and its key. Made for these tests; nobody else trusts it."""

import ssl
from pathlib import Path

from runtime.config.settings import TlsFiles

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBrDCCAVOgAwIBAgIUVp5/hwWfGarqBcbE4l8yrlYRiXkwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNdXBzdHJlYW0gdGVzdDAgFw0yNjExMjExMDQ4MjJaGA8yMTI2
MTAyODEwNDgyMlowGDEWMBQGA1UEAwwNdXBzdHJlYW0gdGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABOtIxLUBfIjbER8o0Q8N4oFEvXHBxfDHwfIzJI5dviH9
rYAMLrPQRG2llEZjyAL85V9//+xwck39qSqEpR1J5rSjeTB3MB0GA1UdDgQWBBSt
iEfBq42MHnnSYLF5yry65Win4jAfBgNVHSMEGDAWgBStiEfBq42MHnnSYLF5yry6
5Win4jAUBgNVHREEDTALgglsb2NhbGhvc3QwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
HQ8BAf8EBAMCAoQwCgYIKoZIzj0EAwIDRwAwRAIgUxnn29M/8mTW8pfED7SBbvmx
ndKmlTWXDzFKjm1Vd7kCIF2ZV6uClIzNy+22yEEJC6d3Yv87950rA2TiGXCv1QS7
-----END CERTIFICATE-----
"""

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxbY2ulv+qhMeGdv2
quGKKe4wZg+SKByVFVtAg/5ZeJShRANCAATrSMS1AXyI2xEfKNEPDeKBRL1xwcXw
x8HyMySOXb4h/a2ADC6z0ERtpZRGY8gC/OVff//scHJN/akqhKUdSea0
-----END PRIVATE KEY-----
"""


def files(folder: Path) -> TlsFiles:
    """Both in that folder, as the configuration names them."""
    (folder / "certificate.pem").write_text(CERTIFICATE)
    (folder / "key.pem").write_text(KEY)
    return TlsFiles(folder / "certificate.pem", folder / "key.pem")


def client_side() -> ssl.SSLContext:
    """What a client needs to trust it, and nobody else."""
    return ssl.create_default_context(cadata=CERTIFICATE)


def server_side(folder: Path) -> ssl.SSLContext:
    """What a server needs to be ``localhost``. Also leaves the certificate there, as ``certificate.pem``."""
    (folder / "certificate.pem").write_text(CERTIFICATE)
    (folder / "both.pem").write_text(CERTIFICATE + KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context
