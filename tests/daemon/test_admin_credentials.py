"""Credentials at run time: each provider gets the one it was accepted with, and no log tells any of them."""

import logging
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from messages.control import ConfigSnapshot, ProviderSpec, TimeoutsSpec
from messages.decisions import StrategyFailed
from runtime.config.settings import Credential
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.credentials import OFFERED_MAX, Credentials
from runtime.logs import SECRETS_MAX, Redaction
from runtime.system.clock import Clock
from runtime.system.system import ActorSystem
from runtime.tree import FAULT_PAUSE_S, Tree


def credential(provider: str, key: str) -> Credential:
    return Credential(provider, "openai", "http://a/v1", SecretStr(key), (("X-Own", f"own-{key}"),), TimeoutsSpec())


def with_provider(found: Credential) -> ConfigSnapshot:
    return ConfigSnapshot(1, (ProviderSpec(found.provider, "openai", "http://a/v1", found.fingerprint()),), "", ())


def store(*loaded: Credential) -> tuple[Credentials, list[str]]:
    secrets: list[str] = []
    return Credentials({one.provider: one for one in loaded}, secrets.extend), secrets


def test_A1_the_secrets_of_an_offered_credential_are_told_before_anything_else() -> None:
    kept, secrets = store()

    kept.offer(credential("a", "key-one"))

    assert secrets == ["key-one", "own-key-one"]
    assert kept.get("a") is None
    assert "key-one" not in repr(kept)


def test_A1_a_refused_registration_takes_its_credential_back_and_touches_no_other() -> None:
    first, second = credential("a", "key-one"), credential("a", "key-two")
    kept, _ = store(first)

    kept.offer(second)
    kept.publish(with_provider(first))
    kept.withdraw(second)
    kept.publish(with_provider(second))

    assert kept.get("a") is first


def test_A1_of_two_racing_registrations_the_accepted_one_has_its_own_key() -> None:
    first, second = credential("a", "key-one"), credential("a", "key-two")
    kept, _ = store()

    kept.offer(first)
    kept.offer(second)
    kept.publish(with_provider(first))
    kept.withdraw(second)
    kept.withdraw(first)

    assert kept.get("a") is first


def test_A1_two_racing_registrations_with_one_key_do_not_take_it_from_each_other() -> None:
    first, same = credential("a", "key-one"), credential("a", "key-one")
    kept, _ = store()

    kept.offer(first)
    kept.offer(same)
    kept.withdraw(first)
    kept.publish(with_provider(same))

    assert kept.get("a") is same


def test_A1_a_credential_stays_until_its_provider_is_forgotten() -> None:
    found = credential("a", "key-one")
    kept, _ = store(found)

    kept.publish(ConfigSnapshot(2, (), "", ()))
    assert kept.get("a") is found

    kept.forget("a")
    assert kept.get("a") is None


def test_A1_what_is_never_answered_for_is_bounded() -> None:
    kept, _ = store()
    offered = [credential(f"p{number}", "key-one") for number in range(OFFERED_MAX + 1)]
    for one in offered:
        kept.offer(one)

    kept.publish(with_provider(offered[0]))
    kept.publish(with_provider(offered[1]))

    assert kept.get("p0") is None
    assert kept.get("p1") is offered[1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("key-one", "key-two"))), max_size=20), st.randoms())
def test_A1_whatever_races_a_provider_has_the_key_its_specification_names(asked: list[tuple[str, str]], rng: Random) -> None:
    # Given registrations of which the registry takes the first for each id, answered in any order
    kept, _ = store()
    open_ones = [credential(*one) for one in asked]
    for one in open_ones:
        kept.offer(one)
    taken: dict[str, Credential] = {}
    rng.shuffle(open_ones)
    for one in open_ones:
        if one.provider not in taken:
            taken[one.provider] = one
            kept.publish(with_provider(one))
        kept.withdraw(one)

    for provider, one in taken.items():
        found = kept.get(provider)
        assert found is not None
        assert found.fingerprint() == one.fingerprint()


def test_A1_a_new_secret_is_taken_out_of_the_log_from_then_on() -> None:
    redaction = Redaction(["old-secret"])
    line = logging.LogRecord("x", logging.INFO, "", 0, "%s", ("old-secret new-secret-longer new-secret short",), None)

    redaction.add(["new-secret", "new-secret-longer", "short"])

    assert redaction.format(line).endswith("x: *** *** *** short")


def test_A1_so_many_secrets_are_remembered_that_the_oldest_is_forgotten() -> None:
    redaction = Redaction(["oldest-secret", *(f"secret-{number}" for number in range(SECRETS_MAX))])
    line = logging.LogRecord("x", logging.INFO, "", 0, "oldest-secret secret-0", (), None)

    assert redaction.format(line).endswith("x: oldest-secret ***")


async def test_a_failing_strategy_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    system = ActorSystem(clock=Clock(lambda: now, lambda: now))
    Tree(system, Directory(ConfigSnapshot(1, (), "", ()), lambda provider: None), PermitTable(), lambda envelope: None)

    for name in ("mine", "mine", "other"):
        system.tell("faults", StrategyFailed(name, "KeyError: 'x'"))
    now += FAULT_PAUSE_S
    system.tell("faults", StrategyFailed("mine", "again"))
    await system.stop()

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "strategy mine failed, 'first' stands in: KeyError: 'x'"),
        ("ERROR", "strategy other failed, 'first' stands in: KeyError: 'x'"),
        ("ERROR", "strategy mine failed, 'first' stands in: again"),
    ]
