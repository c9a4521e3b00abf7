"""The one door for errors of the wire: whatever a call raises becomes a ``Failure`` here.

What may be asked of the same provider again (``later``): where it never had the request, or lost it in a way that passes.
A provider that was silent for too long had the request and may bill it, so it is asked no second time (``elsewhere``).
"""

import asyncio
import ssl

import aiohttp

from messages.failures import Blame, Failure, Retry, Scope


class FirstByteTimeout(Exception):
    """Status and headers did not come in time."""


class IdleTimeout(Exception):
    """The body paused for too long while we were ready to read."""


class TooLarge(Exception):
    """The body has more bytes than we take."""


class Closed(Exception):
    """We have closed the upstream port ourselves."""


class NoConnection(Exception):
    """No connection was made. Its text is the detail, for people."""


class ConnectTimeout(Exception):
    """No connection was made in time."""


class BrokenAnswer(Exception):
    """The answer ended short or is no HTTP. Its text is the detail, for people; never what the other side has sent."""


class Unsendable(ValueError):
    """The request cannot be put on the wire as it is."""


def failure_of(error: BaseException, status: int = 0) -> Failure:
    """What ``error`` means. ``status`` is that of the answer, 0 if there was none yet.

    Certificates come before connections and connections before the rest, for that is how aiohttp's classes inherit.
    """
    match error:
        case FirstByteTimeout():
            return _upstream(Retry.ELSEWHERE, "first_byte_timeout", status, "no answer in time")
        case IdleTimeout():
            return _upstream(Retry.ELSEWHERE, "idle_timeout", status, "the answer paused for too long")
        case TooLarge():
            return Failure(Blame.UPSTREAM, Scope.NONE, Retry.ELSEWHERE, "too_large", status, None, str(error))
        case Closed():
            return Failure(Blame.US, Scope.NONE, Retry.NEVER, "closed", status, None, "the gateway is shutting down")
        case BrokenAnswer():
            return _upstream(Retry.LATER, "broken", status, str(error))
        case NoConnection():
            return _upstream(Retry.LATER, "connect", status, str(error))
        case ConnectTimeout():
            return _upstream(Retry.LATER, "connect_timeout", status, "no connection in time")
        case aiohttp.ClientSSLError() | ssl.SSLError() | ssl.CertificateError():
            return _upstream(Retry.ELSEWHERE, "tls", status, "no trusted TLS connection")
        case aiohttp.ConnectionTimeoutError():
            return _upstream(Retry.LATER, "connect_timeout", status, "no connection in time")
        case aiohttp.ClientConnectorDNSError():
            return _upstream(Retry.LATER, "connect", status, "the host name does not resolve")
        case aiohttp.ClientConnectorError():
            return _upstream(Retry.LATER, "connect", status, f"no connection: {error.os_error.strerror or 'failed'}")
        case aiohttp.ClientHttpProxyError():
            return _upstream(Retry.LATER, "connect", status, f"the proxy answered {error.status}")
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return _upstream(Retry.LATER, "broken", status, "the connection was cut")
        case aiohttp.ClientPayloadError():
            return _upstream(Retry.LATER, "broken", status, "the answer ended short")
        case aiohttp.ClientResponseError():
            return _upstream(Retry.LATER, "broken", status, "the answer is not HTTP")
        case asyncio.TimeoutError():
            return _upstream(Retry.ELSEWHERE, "first_byte_timeout", status, "no answer in time")
        case aiohttp.ClientConnectionError() | OSError():
            return _upstream(Retry.LATER, "broken", status, "the connection broke")
        case aiohttp.NonHttpUrlClientError() | ValueError() | TypeError():
            # InvalidURL among them; the text may quote a header's value, so only the kind is told.
            unsendable = f"the request cannot be sent: {type(error).__name__}"
            return Failure(Blame.US, Scope.PROVIDER, Retry.ELSEWHERE, "unsendable", status, None, unsendable)
        case _:
            return _upstream(Retry.LATER, "broken", status, f"the call broke: {type(error).__name__}")


def _upstream(retry: Retry, code: str, status: int, detail: str) -> Failure:
    return Failure(Blame.UPSTREAM, Scope.PROVIDER, retry, code, status, None, detail)
