"""Who may use the admin API (CONTRACT, HTTP): whoever has the key; without a key, this machine's own people and no web page."""

import hmac
import ipaddress
from urllib.parse import urlsplit

from runtime.ports import EdgeRequest

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]")
_FORWARDED = ("forwarded", "x-forwarded-")


def why_not_admin(request: EdgeRequest, admin_key: str) -> str | None:
    """None if the request may use the admin API, else why it may not. The key is compared in constant time."""
    if admin_key:
        given = request.header("authorization")
        # What came as bytes that are no text must be compared as well, not raise.
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {admin_key}".encode()):
            return None
        return "the admin API needs 'Authorization: Bearer <server.admin_key>'"
    if not is_loopback(request.peer):
        return "without server.admin_key the admin API answers loopback peers only"
    host = request.header("host")
    if _name_of(host) not in _LOOPBACK_NAMES:
        return "without server.admin_key the admin API answers to a loopback Host only"
    if any(name.lower().startswith(_FORWARDED) for name, _ in request.headers):
        return "without server.admin_key the admin API answers no forwarded requests"
    origin = request.header("origin")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        return "without server.admin_key the admin API answers no other site's pages"
    return None


def is_loopback(peer: str) -> bool:
    """Whether ``peer`` is an address of this machine."""
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    if not _HOST_CHARACTERS.issuperset(host):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
