"""The bytes of a request's head, and which URLs the raw client takes."""

import pytest

from runtime.ports import Headers
from runtime.upstream.failures import Unsendable
from runtime.upstream.raw_request import CACHED_MAX, HeadWriter, Origin, parse_url

ORIGIN = Origin("https", "api.example.com", 443)


def head(headers: Headers, *, method: str = "POST", body_bytes: int = 2, origin: Origin = ORIGIN, target: str = "/v1") -> bytes:
    return HeadWriter().head(method, origin, target, headers, body_bytes)


def test_a_head_has_what_it_was_given_the_host_and_the_length_and_nothing_else() -> None:
    wanted = b"POST /v1 HTTP/1.1\r\nHost: api.example.com\r\nA: b\r\nC: d\r\nContent-Length: 2\r\n\r\n"
    assert head((("A", "b"), ("C", "d"))) == wanted
    assert head([("A", "b"), ("C", "d")]) == wanted


@pytest.mark.parametrize(
    ("method", "body_bytes", "is_announced"), [("POST", 0, True), ("GET", 0, False), ("HEAD", 0, False), ("GET", 3, True)]
)
def test_the_length_is_announced_unless_there_is_no_body_to_expect(method: str, body_bytes: int, is_announced: bool) -> None:
    assert (b"Content-Length: %d\r\n" % body_bytes in head((), method=method, body_bytes=body_bytes)) is is_announced


def test_a_host_of_the_callers_takes_the_place_of_ours() -> None:
    assert head((("host", "other"),)).lower().count(b"host:") == 1


def test_what_is_kept_of_earlier_heads_never_shows_in_another() -> None:
    writer = HeadWriter()
    for number in range(3 * CACHED_MAX):
        key = str(number % (2 * CACHED_MAX))
        made = writer.head("POST", ORIGIN, f"/{key}", (("Authorization", key),), number)
        lines = (f"POST /{key} HTTP/1.1", "Host: api.example.com", f"Authorization: {key}", f"Content-Length: {number}", "", "")
        assert made == "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "header",
    [
        ("X", "a\r\nY: secret"),
        ("X", "a\nsecret"),
        ("X", "a\x00secret"),
        ("X: secret", "a"),
        ("X\r\nY", "secret"),
        ("", "secret"),
        ("Content-Length", "7"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_a_header_that_would_not_stay_one_or_tells_a_length_is_refused_without_being_told(header: tuple[str, str]) -> None:
    for headers in ((header,), [header]):
        with pytest.raises(Unsendable) as caught:
            head(headers)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", ["", "post", "GET /evil HTTP/1.1\r\nX:", "A" * 30])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(Unsendable):
        head((), method=method)


def test_the_bytes_of_a_value_go_on_as_they_came() -> None:
    value = b"caf\xc3\xa9 \xff".decode("utf-8", "surrogateescape")
    assert b"X: caf\xc3\xa9 \xff\r\n" in head((("X", value),))


@pytest.mark.parametrize(
    ("url", "origin", "target", "authority"),
    [
        ("http://a/", Origin("http", "a", 80), "/", "a"),
        ("https://A.example", Origin("https", "a.example", 443), "/", "a.example"),
        ("http://a:8080/x?y=z#part", Origin("http", "a", 8080), "/x?y=z", "a:8080"),
        ("https://a:443/x%20y", Origin("https", "a", 443), "/x%20y", "a"),
        ("http://[::1]:99/", Origin("http", "::1", 99), "/", "[::1]:99"),
        ("http://127.0.0.1", Origin("http", "127.0.0.1", 80), "/", "127.0.0.1"),
    ],
)
def test_a_url_is_an_origin_and_a_target(url: str, origin: Origin, target: str, authority: str) -> None:
    assert parse_url(url) == (origin, target)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://x/",
        "http://",
        "http://[::1",
        "http://x:99999/",
        "http://x:y/",
        "http://user:secret@x/",
        "http://x/a b",
        "http://x/\r\nHost: y",
        "http://x/ü",
        "http://a..b/",
        f"http://{'a' * 64}/",
        "/v1",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(Unsendable) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
