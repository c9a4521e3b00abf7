"""The bytes of a request's head, and the parts of a URL. Sans-I/O.

Headers come as tuples of pairs, mostly the same ones again: the bytes of the last distinct tuples are kept, and what was
checked once is not checked again. So are the parts of the last distinct URLs.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from runtime.ports import Headers
from runtime.upstream.failures import Unsendable

CACHED_MAX = 512
DEFAULT_PORTS = {"http": 80, "https": 443}

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(r"[\x00\r\n]")
_URL = re.compile(r"[\x21-\x7e]+")
_METHOD = re.compile(r"[A-Z]{1,20}")
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
"""Methods whose empty body is not announced."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is spoken to: one pool of connections for each."""

    scheme: str
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[Origin, str]:
    """Origin and request target. Raises ``Unsendable`` for what is no http or https URL, or has a user, or is not ASCII."""
    try:
        if not _URL.fullmatch(url):
            raise Unsendable("not an ASCII URL")
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username is not None:
            raise Unsendable("not a plain http or https URL")
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        # Also refuses empty and overlong labels, which the resolver would trip over.
        host = parts.hostname.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise Unsendable("not a host name") from error
    except ValueError as error:
        raise Unsendable("not a URL") from error
    target = parts.path or "/"
    return Origin(parts.scheme, host, port), f"{target}?{parts.query}" if parts.query else target


class HeadWriter:
    """Makes the bytes of heads; all of them end in an empty line, with the length of the body announced."""

    __slots__ = ("_blocks", "_lines")

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], bytes] = {}
        self._blocks: dict[Headers, tuple[bytes, bool]] = {}

    def head(self, method: str, origin: Origin, target: str, headers: Headers, body_bytes: int) -> bytes:
        """The head of a request. A ``Host`` among the headers takes the place of ours. Raises ``Unsendable``."""
        return whole_head(self.start(method, origin, target, headers), method, body_bytes)

    def start(self, method: str, origin: Origin, target: str, headers: Headers) -> bytes:
        """A head without what depends on the body. Raises ``Unsendable``."""
        # Looked up by value, for the tuples are made anew for each call.
        is_kept = type(headers) is tuple
        block, has_host = (self._blocks.get(headers) or self._remember(headers)) if is_kept else _block(headers)
        line = self._line(method, target)
        host = b"" if has_host else b"Host: %b\r\n" % origin.authority.encode("ascii")
        return b"%b%b%b" % (line, host, block)

    def _line(self, method: str, target: str) -> bytes:
        found = self._lines.get((method, target))
        if found is None:
            if not _METHOD.fullmatch(method):
                raise Unsendable("not a method")
            if len(self._lines) >= CACHED_MAX:
                self._lines.clear()
            found = self._lines[method, target] = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
        return found

    def _remember(self, headers: Headers) -> tuple[bytes, bool]:
        block = _block(headers)
        if len(self._blocks) >= CACHED_MAX:
            self._blocks.clear()
        self._blocks[headers] = block
        return block


def whole_head(start: bytes, method: str, body_bytes: int) -> bytes:
    """A head from its start, with the length of the body."""
    if body_bytes or method not in _WITHOUT_BODY:
        return b"%bContent-Length: %d\r\n\r\n" % (start, body_bytes)
    return start + b"\r\n"


def _block(headers: Headers) -> tuple[bytes, bool]:
    """The lines of the headers, and whether ``Host`` is among them. No text of a header goes into an error."""
    lines = []
    has_host = False
    for name, value in headers:
        lower = name.lower()
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise Unsendable("a header that would not stay one")
        if lower in _FRAMING:
            raise Unsendable("the length of the body is not the caller's to tell")
        has_host = has_host or lower == "host"
        # What came from a client goes on with the bytes it had.
        lines.append(f"{name}: {value}\r\n".encode("utf-8", "surrogateescape"))
    return b"".join(lines), has_host
