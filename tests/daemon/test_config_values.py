"""Durations, sizes, URLs and hosts as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from runtime.config.values import (
    DURATION_S_MAX,
    SIZE_BYTES_MAX,
    checked_url,
    duration_text,
    is_loopback,
    parse_duration_s,
    parse_size_bytes,
    size_text,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1.5s", 1.5),
        (7, 7.0),
        (0.25, 0.25),
        ("12", 12.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_milliseconds_seconds_minutes_hours_or_a_plain_number_of_seconds(written: object, seconds: float) -> None:
    assert parse_duration_s(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "s", "1x", "-1s", "1 s", "1e3", "٣s", -1, True, None, [], math.inf, math.nan, 10**400, "99999h", "1s\n1s"]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_duration_s(written)


@given(st.integers(0, int(DURATION_S_MAX * 1000)))
def test_a_duration_in_whole_milliseconds_survives_being_written_and_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration_s(duration_text(seconds)) == seconds


@given(st.floats(0, DURATION_S_MAX))
def test_any_duration_survives_being_written_and_read_to_the_nanosecond(seconds: float) -> None:
    assert parse_duration_s(duration_text(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("20MiB", 20 << 20),
        ("64KiB", 65536),
        ("1MB", 1_000_000),
        ("1GiB", 1 << 30),
        ("7", 7),
        (9, 9),
        ("0.5KiB", 512),
        ("3 KB", 3000),
    ],
)
def test_a_size_is_binary_or_decimal_units_or_a_plain_number_of_bytes(written: object, size: int) -> None:
    assert parse_size_bytes(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "1XB", "-1", "1.5", "0.3B", 1.5, True, None, -1, "9999999GiB", 10**400])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_size_bytes(written)


@given(st.integers(0, SIZE_BYTES_MAX))
def test_a_size_survives_being_written_and_read(size: int) -> None:
    assert parse_size_bytes(size_text(size)) == size


def test_durations_and_sizes_are_written_in_their_largest_whole_unit() -> None:
    assert [duration_text(seconds) for seconds in (0, 0.25, 30, 90, 300, 7200)] == ["0s", "250ms", "30s", "90s", "5m", "2h"]
    assert [size_text(size) for size in (0, 1000, 65536, 20 << 20)] == ["0B", "1000B", "64KiB", "20MiB"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com/v1",
        "https://",
        "https://user:password@example.com/v1",
        "https://key@example.com",
        "https://example.com/v1?key=1",
        "https://example.com/v1#part",
        "https://exam ple.com",
        "https://example.com\r\nX: y",
        "https://example.com:99999",
        "https://[::1",
        "https://exämple.com",
        "",
    ],
)
def test_only_plain_http_and_https_urls_are_taken(url: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        checked_url(url)
    assert "password" not in caught.value.message().replace("user name or password", "")


def test_the_slash_at_the_end_of_a_url_is_dropped() -> None:
    assert checked_url("https://example.com/v1/") == "https://example.com/v1"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "localhost", "LOCALHOST", "127.8.9.1", "::1", "[::1]")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com")],
    ],
)
def test_loopback_hosts_are_told_from_others(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
