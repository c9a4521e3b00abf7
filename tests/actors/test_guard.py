"""Who may use the admin API."""

import pytest

from runtime.http.guard import is_loopback, why_not_admin
from runtime.ports import EdgeRequest

HOST = ("Host", "127.0.0.1:8080")


def request(*headers: tuple[str, str], peer: str = "127.0.0.1") -> EdgeRequest:
    return EdgeRequest("GET", "/admin/providers", headers, b"", peer)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", "key")],
        [("Authorization", "bearer key")],
        [("Authorization", "Bearer key ")],
        [("Authorization", "Bearer \udcff")],
        [("X-Api-Key", "key")],
        [("Authorization", "Bearer wrong"), ("Authorization", "Bearer key")],
    ],
)
def test_with_a_key_only_the_key_counts(headers: list[tuple[str, str]]) -> None:
    assert why_not_admin(request(HOST, *headers), "key") is not None


def test_with_a_key_who_has_it_may_come_from_anywhere() -> None:
    headers = [("Host", "example.com"), ("Authorization", "Bearer key"), ("X-Forwarded-For", "10.0.0.1")]

    assert why_not_admin(request(*headers, peer="10.0.0.1"), "key") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1"])
def test_without_a_key_this_machines_own_people_may(host: str, peer: str) -> None:
    assert why_not_admin(request(("Host", host), peer=peer), "") is None


@pytest.mark.parametrize("peer", ["10.0.0.1", "192.168.1.1", "fe80::1", "", "nonsense", "unix:"])
def test_without_a_key_other_machines_may_not(peer: str) -> None:
    assert not is_loopback(peer)
    assert why_not_admin(request(HOST, peer=peer), "") is not None


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.example.com", "localhost.example.com", "", "[::1", "0.0.0.0", "a@b@127.0.0.1:x"]
)
def test_without_a_key_a_name_that_leads_here_from_outside_may_not(host: str) -> None:
    assert why_not_admin(request(("Host", host)), "") is not None


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO", "X-Forwarded-Port", "X-Forwarded-Prefix"]
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_without_a_key_nothing_forwarded_may(name: str, value: str) -> None:
    assert why_not_admin(request(HOST, (name, value)), "") is not None


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1:8080", True),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:3000", False),
        ("http://localhost:8080", False),
        ("http://example.com", False),
        ("null", False),
        ("file://", False),
    ],
)
def test_without_a_key_pages_of_other_sites_may_not(origin: str, may: bool) -> None:
    assert (why_not_admin(request(HOST, ("Origin", origin)), "") is None) is may
