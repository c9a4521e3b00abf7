"""Which headers pass the gateway, in either direction. Sans-I/O.

Both directions go by a list of what may pass, so that what nobody thought of stays out: cookies, addresses, hop-by-hop
headers and whatever ``Connection`` names, the client's key, our own ``x-pointsman-*``.

Upstream, because they are the client's words to the provider: ``openai-beta``, ``idempotency-key`` and
``x-client-request-id``. Not ``openai-organization`` and ``openai-project``: they belong to the client's account, while the
call is made on ours. The user agent is ours.

To the client: the content type, OpenAI's ``openai-processing-ms`` and ``openai-version``, and the provider's request id
under a name of its own, since ``x-request-id`` is ours. Not ``x-ratelimit-*`` and not ``retry-after``: they speak of our
limits there, and the next request may go elsewhere.
"""

import re

from runtime.ports import Headers

USER_AGENT = "pointsman"
UPSTREAM_REQUEST_ID = "x-pointsman-upstream-request-id"

_TO_UPSTREAM = frozenset({"openai-beta", "idempotency-key", "x-client-request-id"})
TO_CLIENT = {
    "content-type": "content-type",
    "openai-processing-ms": "openai-processing-ms",
    "openai-version": "openai-version",
    "x-request-id": UPSTREAM_REQUEST_ID,
}
"""What of an upstream's headers the client gets (``told``), and under which name."""
_ACCEPT_JSON = ("Accept", "application/json")
_ACCEPT_STREAM = ("Accept", "text/event-stream")
_NEVER_CONFIGURED = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
VALUE_CHARACTERS_MAX = 8192


class BadHeader(ValueError):
    """A header that would not stay one: its name or value has characters that end it. The value is not told."""

    def __init__(self, name: str) -> None:
        super().__init__(f"header {name[:64]!r} has a name or value that no header may have")
        self.name = name


def checked(name: str, value: str) -> tuple[str, str]:
    """The pair as it is. Raises ``BadHeader`` if it could smuggle in another header, or is endless."""
    if not _NAME.fullmatch(name) or len(value) > VALUE_CHARACTERS_MAX or BAD_VALUE.search(value):
        raise BadHeader(name)
    return name, value


def base_headers(key: str, configured: Headers = ()) -> tuple[tuple[str, str], ...]:
    """The headers of every call to one provider: make them once per credential, not per request.

    ``key`` is the credential (empty: none); ``configured`` are the provider's own headers of the file and win over ours.
    Accept-Encoding asks for identity, so that bytes can pass as they come. Raises ``BadHeader``.
    """
    made = {
        "content-type": ("Content-Type", "application/json"),
        "user-agent": ("User-Agent", USER_AGENT),
        "accept-encoding": ("Accept-Encoding", "identity"),
    }
    if key:
        made["authorization"] = checked("Authorization", f"Bearer {key}")
    for name, value in configured:
        if name.lower() not in _NEVER_CONFIGURED:
            made[name.lower()] = checked(name, value)
    return tuple(made.values())


def passes_upstream(name: str) -> bool:
    """Whether a client's header of that name goes to the provider."""
    return name.lower() in _TO_UPSTREAM


def request_headers(
    base: Headers, client: Headers, *, is_stream: bool = False, trace: Headers = ()
) -> tuple[tuple[str, str], ...]:
    """The headers of one call. ``base`` is what ``base_headers`` made; it wins over what the client sent.

    ``trace`` is our own trace context, to be given for trusted providers only; the client's never passes. Raises
    ``BadHeader``.
    """
    made = (*base, _ACCEPT_STREAM if is_stream else _ACCEPT_JSON)
    for name, value in client:
        if passes_upstream(name) and not any(name.lower() == other.lower() for other, _ in base):
            made += (checked(name.lower(), value),)
    if trace:
        made += tuple(checked(name, value) for name, value in trace)
    return made
