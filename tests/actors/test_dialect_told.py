"""What headers of answers say, as text or as they came on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.calls import LimitsSeen
from runtime.dialects.headers import TO_CLIENT
from runtime.dialects.limits import LIMITS
from runtime.dialects.told import NAMES_SEEN_MAX, TYPES_SEEN_MAX, Told, text, told, told_raw

READ = [*TO_CLIENT, *LIMITS, "content-encoding"]
SPELLINGS = [str.lower, str.upper, str.title]
NAMES = st.builds(lambda name, spell: spell(name), st.sampled_from(READ), st.sampled_from(SPELLINGS)) | st.text(
    "abC-1", max_size=40
)
VALUES = st.sampled_from([b"application/json", b"gzip", b"identity", b" Identity ", b"", b"12", b"6m0s"]) | st.binary(
    max_size=12
).filter(lambda value: b"\r" not in value)


def raw(*pairs: tuple[str, bytes]) -> bytes:
    return b"\r\n".join(
        [b"HTTP/1.1 200 OK", *(b"%b:%b" % (name.encode(), value) for name, value in pairs), b"", b"x-request-id: no header"]
    )


def all_of(found: Told) -> tuple[list[tuple[str, str]], bool, LimitsSeen | None]:
    return found.passing, found.is_encoded, found.limits()


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_headers_say_the_same_as_they_came_and_as_text(pairs: list[tuple[str, bytes]]) -> None:
    as_text = [(name, text(value.lstrip(b" \t"))) for name, value in pairs]
    assert all_of(told_raw(raw(*pairs))) == all_of(told(as_text))


def test_what_is_for_the_client_passes_in_order_and_under_the_clients_names() -> None:
    came = raw(
        ("Content-Type", b"application/json \t"),
        ("Server", b"x"),
        ("X-Request-Id", b"up-1"),
        ("X-Padding-xyz", b"of a length that is somebody's, but nobody's name"),
        ("OpenAI-Version", b"caf\xe9"),
        ("CONTENT-TYPE", b"text/plain"),
    )
    assert told_raw(came).passing == [
        ("content-type", "application/json"),
        ("x-pointsman-upstream-request-id", "up-1"),
        ("openai-version", "café"),
        ("content-type", "text/plain"),
    ]


@pytest.mark.parametrize("bad", [b"a\nb", b"a\0", b"\x7f", b"x" * 8193])
def test_what_would_not_stay_a_header_does_not_pass(bad: bytes) -> None:
    assert told_raw(raw(("Content-Type", bad), ("X-Request-Id", bad), ("openai-version", b"1\t2"))).passing == [
        ("openai-version", "1\t2")
    ]


def test_a_body_is_encoded_if_any_header_says_so() -> None:
    for encodings, is_encoded in (([b"gzip", b"identity"], True), ([b"identity", b"br"], True), ([b"", b" IDENTITY"], False)):
        assert told_raw(raw(*[("Content-Encoding", one) for one in encodings])).is_encoded is is_encoded


def test_of_limits_the_last_word_counts() -> None:
    name = "X-RateLimit-Remaining-Requests"
    assert told_raw(raw((name, b"1"), (name, b" 59 "))).limits() == LimitsSeen(remaining_requests=59)
    assert told_raw(raw((name, b"1"), (name, b"many"))).limits() is None


def test_names_that_nobody_knows_are_for_nobody_however_many_there_are() -> None:
    # Of a length that is read, so that they are looked up.
    for number in range(3 * NAMES_SEEN_MAX):
        assert all_of(told_raw(raw((f"x-{number:010}", b"x"), ("x" * 65, b"x")))) == ([], False, None)
    assert told_raw(raw(("CoNtEnT-tYpE", b"a/b"))).passing == [("content-type", "a/b")]


def test_types_pass_as_they_came_however_many_there_are() -> None:
    for number in range(2 * TYPES_SEEN_MAX):
        for _ in range(2):
            assert told_raw(raw(("Content-Type", b"a/%d" % number))).passing == [("content-type", f"a/{number}")]
            assert told_raw(raw(("Content-Type", b"a/%d" % number), ("Content-Type", b"\x7f"))).passing == [
                ("content-type", f"a/{number}")
            ]
