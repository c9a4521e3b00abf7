"""Time ranges: zones, midnight, and the days on which the clock is moved."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.rules.compiled import compile_rule, compiled
from actors.router.rules.facts import Facts
from messages.policy import NORMAL, Condition, ConditionKind, Rule
from messages.routing import RequestProfile

PROFILE = RequestProfile(model="m")
HOUR = 3600.0
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia")


def between(start_h: float, end_h: float, zone: str = "UTC") -> Condition:
    return Condition(ConditionKind.TIME_RANGE, start_s=start_h * HOUR, end_s=end_h * HOUR, zone=zone)


def holds(condition: Condition, at: datetime) -> bool | None:
    return compiled(condition)(Facts(PROFILE, "m", at.timestamp(), NORMAL), None)


def utc(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


def test_A4_the_start_belongs_to_a_range_and_the_end_does_not() -> None:
    office = between(9, 17)
    assert [holds(office, utc(hour)) for hour in (8, 9, 16, 17)] == [False, True, True, False]
    assert holds(office, utc(16, 59)) is True


def test_A4_a_range_wraps_round_midnight() -> None:
    night = between(22, 6)
    assert [holds(night, utc(hour)) for hour in (21, 22, 23, 0, 5, 6, 12)] == [False, True, True, True, True, False, False]


def test_A4_a_range_is_in_its_zone() -> None:
    office = between(9, 17, "Europe/Berlin")
    assert holds(office, utc(7)) is True, "09:00 in Berlin in summer"
    assert holds(office, utc(15)) is False
    assert holds(office, datetime(2026, 1, 1, 7, tzinfo=UTC)) is False, "08:00 in winter"


def test_A4_a_range_that_ends_where_it_starts_is_the_whole_day() -> None:
    for start, end in ((0, 0), (9, 9), (0, 24), (24, 24), (24, 0)):
        assert all(holds(between(start, end), utc(hour)) for hour in range(24)), (start, end)


def test_A4_a_range_can_end_at_midnight() -> None:
    for end in (0, 24):
        assert [holds(between(20, end), utc(hour)) for hour in (19, 20, 23, 0)] == [False, True, True, False]


def test_A4_outside_a_range_is_a_range_negated() -> None:
    day_off = Condition(ConditionKind.NOT, parts=(between(9, 17),))
    assert [holds(day_off, utc(hour)) for hour in (8, 9, 17)] == [True, False, True]


def test_A4_the_hour_summer_time_leaves_out_never_comes_and_the_repeated_one_counts_twice() -> None:
    skipped, repeated = between(2, 3, "Europe/Berlin"), between(2, 3, "Europe/Berlin")
    spring, autumn = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)
    minutes = [timedelta(minutes=minute) for minute in range(0, 12 * 60, 15)]
    assert sum(bool(holds(skipped, spring + after)) for after in minutes) == 0
    assert sum(bool(holds(repeated, autumn + after)) for after in minutes) == 8


@given(
    st.sampled_from(ZONES),
    st.integers(0, 86_399),
    st.integers(0, 86_400),
    st.sampled_from(
        [datetime(2026, 3, 8), datetime(2026, 3, 29), datetime(2026, 4, 5), datetime(2026, 10, 4), datetime(2026, 11, 1)]
    ),
    st.integers(-86_400, 2 * 86_400),
)
def test_A4_a_range_agrees_with_the_clock_on_the_wall(
    zone: str, start_s: int, end_s: int, day: datetime, offset_s: int
) -> None:
    at = day.replace(tzinfo=UTC) + timedelta(seconds=offset_s)
    condition = Condition(ConditionKind.TIME_RANGE, start_s=float(start_s), end_s=float(end_s), zone=zone)
    clock = at.astimezone(ZoneInfo(zone)).time()
    shown = (clock.hour * 60 + clock.minute) * 60 + clock.second
    # Every second from the start on until the end comes round, one after another.
    length = (end_s - start_s) % 86_400 or 86_400
    assert holds(condition, at) is ((shown - start_s) % 86_400 < length)


@given(st.sampled_from(ZONES), st.floats(0, 4e9), st.integers(0, 86_399), st.integers(0, 86_399))
def test_A4_at_every_moment_either_a_range_or_the_rest_of_the_day_holds(zone: str, wall: float, one: int, other: int) -> None:
    facts = Facts(PROFILE, "m", wall, NORMAL)
    parts = [
        Condition(ConditionKind.TIME_RANGE, start_s=float(start), end_s=float(end), zone=zone)
        for start, end in ((one, other), (other, one))
    ]
    verdicts = [compiled(part)(facts, None) for part in parts]
    assert verdicts == [True, True] if one == other else sorted(map(bool, verdicts)) == [False, True]


def test_a_rule_with_an_unknown_zone_cannot_be_made_and_says_which() -> None:
    with pytest.raises(ValueError, match=r"rule 'night': there is no time zone 'Mars/Olympus'"):
        compile_rule(Rule("night", when=between(1, 2, "Mars/Olympus")))
