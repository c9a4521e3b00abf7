"""What a pattern of names and a time zone mean: said once, for those who check a configuration and for those who apply it."""

import re
from collections.abc import Callable
from fnmatch import translate
from zoneinfo import ZoneInfo

from actors.regexes import NAME_LENGTH_MAX, compiled_regex

PATTERN_LENGTH_MAX = 256
"""Characters of a pattern; names are no longer either."""
_GLOB = re.compile(r"[*?\[]")


def name_test(pattern: str) -> Callable[[str], bool]:
    """A test of names: ``/regex/`` is searched, with ``*``, ``?`` or ``[`` it is a glob for the whole name, else a substring.

    Globs follow ``fnmatch.fnmatchcase``; everything minds upper and lower case. Raises ``ValueError`` with a plain reason if
    the pattern is empty or too long, or its expression none or one that could take too long (``actors.regexes``). A name of
    more than 256 characters matches no regular expression: the bound on their work rests on it.
    """
    if not pattern or pattern == "//":
        raise ValueError("the pattern is empty")
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise ValueError(f"the pattern is longer than {PATTERN_LENGTH_MAX} characters")
    if len(pattern) > 2 and pattern[0] == "/" and pattern[-1] == "/":
        return _searching(compiled_regex(pattern[1:-1]))
    if not _GLOB.search(pattern):
        return lambda name: pattern in name
    if not _GLOB.search(pattern, 0, len(pattern) - 1) and pattern[-1] == "*":
        prefix = pattern[:-1]
        return lambda name: name.startswith(prefix)
    whole = re.compile(translate(pattern)).match
    return lambda name: whole(name) is not None


def _searching(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    search = pattern.search
    return lambda name: len(name) <= NAME_LENGTH_MAX and search(name) is not None


def time_zone(name: str) -> ZoneInfo:
    """The time zone with this IANA name. Raises ``ValueError`` with a plain reason if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None
