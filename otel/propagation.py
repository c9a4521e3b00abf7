"""W3C trace context and baggage, as they come and go in headers. Pure functions over strings; no SDK.

Sources: W3C Trace Context (traceparent §3.2, tracestate §3.3), W3C Baggage. What comes from outside is either valid by
these or as if it had not come: a bad header never fails a request, and nothing unchecked is ever sent on.
"""

import re
from dataclasses import dataclass
from typing import Final

from messages.envelope import TraceContext

TRACESTATE_LENGTH_MAX: Final = 512
TRACESTATE_MEMBERS_MAX: Final = 32
BAGGAGE_LENGTH_MAX: Final = 8192
BAGGAGE_MEMBERS_MAX: Final = 64

_LONG_MEMBER_LENGTH: Final = 128
"""Members of tracestate longer than this are the first to go (§3.3.1.5)."""
_SAMPLED: Final = 0x01
_VERSION_0_LENGTH: Final = 55

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_TRACESTATE_MEMBER = re.compile(
    r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_BAGGAGE_MEMBER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*=[\x20-\x2b\x2d-\x7e\t]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class IncomingTrace:
    """The client's position in its trace. Ids as in ``TraceContext``."""

    trace_id: str
    span_id: str
    sampled: bool
    tracestate: str = ""


def parse_traceparent(value: str, tracestate: str = "") -> IncomingTrace | None:
    """Read a ``traceparent`` header, and the ``tracestate`` that came with it; None if the former is not valid.

    Version 00 must have exactly its four fields. A later version is read by its first four fields, whatever follows
    after a dash; version ff and ids of only zeros are not valid. Of the flags only the lowest bit, sampled, is known.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, _ = found.groups()
    if version == "ff" or (version == "00" and len(value) != _VERSION_0_LENGTH):
        return None
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    return IncomingTrace(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), parse_tracestate(tracestate))


def format_traceparent(context: TraceContext) -> str:
    """The ``traceparent`` of a sampled position, version 00."""
    return f"00-{context.trace_id}-{context.span_id}-01"


def parse_tracestate(value: str) -> str:
    """``tracestate`` as it may be passed on: empty if it is not valid, at most 512 characters, only whole members.

    If it is too long, members of more than 128 characters go first, then the last ones.
    """
    if not value:
        return ""
    members = [member for part in value.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > TRACESTATE_MEMBERS_MAX or len(keys) != len(members):
        return ""
    if not all(_TRACESTATE_MEMBER.fullmatch(member) for member in members):
        return ""
    if _joined_length(members) > TRACESTATE_LENGTH_MAX:
        members = [member for member in members if len(member) <= _LONG_MEMBER_LENGTH]
    while _joined_length(members) > TRACESTATE_LENGTH_MAX:
        members.pop()
    return ",".join(members)


def parse_baggage(value: str) -> str:
    """``baggage`` as it may be passed on: whole valid members in order, at most 64 of them and 8192 characters."""
    if not value:
        return ""
    kept: list[str] = []
    length = -1
    for part in value[: 2 * BAGGAGE_LENGTH_MAX].split(","):
        member = part.strip(" \t")
        if not _BAGGAGE_MEMBER.fullmatch(member):
            continue
        length += len(member) + 1
        if length > BAGGAGE_LENGTH_MAX or len(kept) == BAGGAGE_MEMBERS_MAX:
            break
        kept.append(member)
    return ",".join(kept)


def outgoing_headers(context: TraceContext | None, baggage: str = "") -> list[tuple[str, str]]:
    """The headers to send to a trusted provider: none of the trace if the request is not sampled.

    ``baggage`` is what ``parse_baggage`` gave.
    """
    headers: list[tuple[str, str]] = []
    if context is not None:
        headers.append(("traceparent", format_traceparent(context)))
        if context.tracestate:
            headers.append(("tracestate", context.tracestate))
    if baggage:
        headers.append(("baggage", baggage))
    return headers


def _joined_length(members: list[str]) -> int:
    return sum(len(member) + 1 for member in members) - 1
