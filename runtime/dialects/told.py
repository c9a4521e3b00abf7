"""What an answer's headers say that is acted upon: what the client gets of them, what they tell of limits. Sans-I/O.

Of the dozens of headers that providers send, few are for anybody; the rest are told by their names alone and never decoded.
"""

from messages.base import acyclic
from messages.calls import LimitsSeen
from runtime.dialects.headers import BAD_VALUE, TO_CLIENT, VALUE_CHARACTERS_MAX
from runtime.dialects.limits import LIMITS, limits_of
from runtime.ports import Headers

ENCODING = "content-encoding"
_READ = frozenset({*TO_CLIENT, *LIMITS, ENCODING})
_CR, _EMPTY = b"\r", b"\n"
_SPACE, _TAB = ord(" "), ord("\t")
_FIRST_LETTERS = sum(1 << letter for letter in {ord(name[0]) & 31 for name in _READ})
_NINTH_LETTERS = sum(1 << letter for letter in {ord(name[8]) & 31 for name in _READ})
"""A bit for each first letter of their names, and for each ninth, which all have: nearly all others are told by these, which is
quicker than to look them up."""
_NAMES_SEEN: dict[bytes, str] = {}
"""Names as upstreams spell them, in lower case, empty: for nobody. They spell the same few again and again."""
NAMES_SEEN_MAX = 1024
TYPE = "content-type"
_TYPES_SEEN: dict[bytes, tuple[str, str]] = {}
"""Headers of this name, which every answer has, by their lines: providers, too, say the same few again and again."""
TYPES_SEEN_MAX = 256
TYPE_BYTES_MAX = 256


@acyclic
class Told:
    """What the headers of one answer have told."""

    __slots__ = ("_limits", "is_encoded", "passing")

    def __init__(self) -> None:
        self.passing: list[tuple[str, str]] = []
        """What the client gets, under the client's names; for whoever gets it to add to."""
        self.is_encoded = False
        """The body is compressed although we asked for identity."""
        self._limits: dict[str, str] | None = None

    def note(self, name: str, value: str) -> None:
        """One of those that are for anybody; ``name`` in lower case. What would not stay a header does not pass."""
        renamed = TO_CLIENT.get(name)
        if renamed is not None:
            # What is printable has nothing bad in it, and that is quicker to find out.
            if len(value) <= VALUE_CHARACTERS_MAX and (value.isprintable() or not BAD_VALUE.search(value)):
                self.passing.append((renamed, value))
        elif name == ENCODING:
            self.is_encoded = self.is_encoded or value.strip().lower() not in ("", "identity")
        else:
            if self._limits is None:
                self._limits = {}
            self._limits[LIMITS[name]] = value.strip()

    def limits(self) -> LimitsSeen | None:
        """What ``x-ratelimit-{remaining,reset}-{requests,tokens}`` say; None if nothing."""
        return limits_of(self._limits) if self._limits is not None else None


def told(headers: Headers) -> Told:
    """What headers say, as pairs of text."""
    made = Told()
    for name, value in headers:
        known = name.lower()
        if known in _READ:
            made.note(known, value)
    return made


def told_raw(head: bytes) -> Told:
    """What the headers of an answer's head say, as it came: up to an empty line, if there is one, whatever comes after it."""
    made = Told()
    # One byte is found sooner than two are, so each line begins with the second.
    for line in head.split(_CR):
        if line == _EMPTY:
            break
        if len(line) < 10 or not (_FIRST_LETTERS >> (line[1] & 31)) & 1 or not (_NINTH_LETTERS >> (line[9] & 31)) & 1:
            continue
        pair = _TYPES_SEEN.get(line)
        if pair is not None:
            made.passing.append(pair)
            continue
        colon = line.find(b":")
        name = line[1:colon]
        known = _NAMES_SEEN.get(name)
        if known is None:
            known = _known(name)
        if known:
            count = len(made.passing)
            made.note(known, text(value_at(line, colon)))
            # One that does not pass is none to keep.
            if known == TYPE and len(made.passing) > count:
                _keep_type(line, made.passing[-1])
    return made


def value_at(line: bytes, colon: int) -> bytes:
    """What stands after the colon in the line of a header, without the space before it."""
    at = colon + 1
    while at < len(line) and (line[at] == _SPACE or line[at] == _TAB):
        at += 1
    return line[at:]


def text(value: bytes) -> str:
    """A header's value as it came, as text."""
    return value.decode("latin-1").rstrip()


def _known(name: bytes) -> str:
    lower = name.decode("latin-1").lower()
    known = lower if lower in _READ else ""
    if len(_NAMES_SEEN) < NAMES_SEEN_MAX:
        _NAMES_SEEN[name] = known
    return known


def _keep_type(line: bytes, pair: tuple[str, str]) -> None:
    if len(_TYPES_SEEN) < TYPES_SEEN_MAX and len(line) <= TYPE_BYTES_MAX:
        _TYPES_SEEN[line] = pair
