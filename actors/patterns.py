"""What a pattern of names and a time zone mean: said once, for those who check a configuration and for those who apply it."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from fnmatch import translate
from zoneinfo import ZoneInfo

from actors.regexes import NAME_LENGTH_MAX, compiled_regex

DAY_S = 86_400.0
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


def time_of_day_test(start_s: float, end_s: float, zone: str) -> Callable[[float], bool]:
    """A test of unix seconds: whether it is ``start_s`` or later in ``zone``, and not yet ``end_s``, both in s since midnight.

    The wall clock of the zone decides: an hour that summer time leaves out never comes, one it repeats counts twice. An end at
    or before the start is on the next day: the same is the whole day; a start of 24:00 is midnight. Raises ``ValueError`` if
    there is no such zone.
    """
    start_s, place = start_s % DAY_S, time_zone(zone)
    # UTC has no summer time, and is what most files mean.
    is_utc = zone == "UTC"
    if start_s == end_s:
        return lambda wall: True
    wraps = end_s < start_s

    def is_within(wall: float) -> bool:
        if is_utc:
            now = wall % DAY_S
        else:
            local = datetime.fromtimestamp(wall, place)
            now = local.hour * 3600.0 + local.minute * 60.0 + local.second + local.microsecond / 1e6
        return (now >= start_s or now < end_s) if wraps else start_s <= now < end_s

    return is_within


def wall_at(time_s: float, zone: str) -> float:
    """Unix seconds at which it is ``time_s`` after midnight in ``zone``, on a day on which no zone changes its clocks."""
    return (datetime(2026, 6, 15, tzinfo=time_zone(zone)) + timedelta(seconds=time_s)).timestamp()
