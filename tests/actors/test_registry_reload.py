"""A new file replaces the file's part; what the admin API changed stays, or nothing changes at all."""

from dataclasses import replace

import pytest

from actors.kernel import Ref
from actors.registry import RegistryActor
from messages.base import Message
from messages.changes import (
    Change,
    ChangeFault,
    DeleteRule,
    EnableRule,
    PatchProvider,
    PutAlias,
    PutRule,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot, Configured, ModelsLearned, Propose
from messages.policy import PoolSpec
from runtime.system.solo import SoloContext
from tests.actors.test_registry import LARGE, LISTS, SMALL
from tests.actors.test_registry_changes import ALWAYS_COST, FILE, TO_B, A, B, C, D, Desk, fault_and_path

SAID: tuple[Change, ...] = (
    RegisterProvider(D),
    UnregisterProvider("c"),
    PatchProvider("b", weight=5, status="unavailable", status_reason="moving"),
    SetDefault("d"),
    SetStrategy("cost"),
    SetStrategy("random", model="m"),
    SetStrategy("random", tenant="acme"),
    PutAlias("best", "m"),
    PutRule(TO_B),
    EnableRule("cost", False),
)


def desk_with(*said: Change, file: ConfigSnapshot = FILE) -> Desk:
    desk = Desk(file)
    for change in said:
        desk.does(change)
    return desk


def test_pain_21_a_new_file_replaces_only_the_files_part() -> None:
    desk = desk_with(*SAID, file=replace(FILE, rules=(ALWAYS_COST,)))
    before = desk.in_force
    newer = replace(FILE, rules=(replace(ALWAYS_COST, priority=4),), providers=(A, replace(B, weight=9, region="eu"), C))

    assert desk.change(Propose(newer)) == Configured(desk.in_force)

    now = desk.in_force
    assert now == replace(
        before,
        generation=before.generation + 1,
        providers=(A, replace(before.providers[1], region="eu"), D),
        rules=(replace(ALWAYS_COST, priority=4, enabled=False), TO_B),
    )


def test_what_was_said_of_a_provider_sleeps_while_the_file_does_not_have_it() -> None:
    desk = desk_with(PatchProvider("b", enabled=False), UnregisterProvider("c"))

    desk.change(Propose(replace(FILE, providers=(A,))))
    assert desk.ids == ["a"]

    desk.change(Propose(FILE))
    assert desk.in_force.providers == (A, replace(B, enabled=False))


def test_a_file_with_a_provider_that_was_registered_is_refused_and_both_are_named() -> None:
    desk = desk_with(RegisterProvider(D))

    refusal = desk.refuses(Propose(replace(FILE, providers=(A, D))))

    assert fault_and_path(refusal) == (ChangeFault.INVALID, "providers[1].id")
    assert "provider 'd' registered through the admin API" in refusal.reason


def test_a_provider_of_the_file_that_was_registered_anew_stays_as_it_was_registered() -> None:
    desk = desk_with(UnregisterProvider("b"), RegisterProvider(replace(B, weight=8)))

    desk.change(Propose(replace(FILE, providers=(A, replace(B, weight=2), C))))

    assert desk.in_force.providers == (A, C, replace(B, weight=8))


def test_a_file_without_the_provider_of_a_rule_that_was_put_is_refused_and_both_are_named() -> None:
    desk = desk_with(PutRule(TO_B))

    refusal = desk.refuses(Propose(replace(FILE, providers=(A, C))))

    assert fault_and_path(refusal) == (ChangeFault.INVALID, "providers")
    assert "rule 'to-b' put through the admin API" in refusal.reason


def test_a_file_without_the_default_that_was_set_is_refused_and_both_are_named() -> None:
    desk = desk_with(SetDefault("c"))

    refusal = desk.refuses(Propose(replace(FILE, providers=(A, B))))

    assert fault_and_path(refusal) == (ChangeFault.INVALID, "providers")
    assert "default provider 'c' set through the admin API" in refusal.reason


def test_a_file_whose_rule_needs_what_was_unregistered_is_refused_at_its_place_in_the_file() -> None:
    desk = desk_with(UnregisterProvider("b"), DeleteRule("cost"), file=replace(FILE, rules=(ALWAYS_COST,)))

    refusal = desk.refuses(Propose(replace(FILE, rules=(ALWAYS_COST, TO_B))))

    assert refusal.path.startswith("rules[1].then[0].provider")
    assert "provider 'b' unregistered through the admin API" in refusal.reason


def test_a_file_without_the_last_provider_of_a_pool_that_was_changed_is_refused_and_both_are_named() -> None:
    desk = desk_with(SetStrategy("cost", model="m"))
    refusal = desk.refuses(Propose(replace(FILE, providers=(replace(A, models=(SMALL,)),))))

    assert fault_and_path(refusal) == (ChangeFault.INVALID, "providers")
    assert refusal.reason == (
        "no provider serves a model of this name; does not go with strategy of pool 'm' set through the admin API"
    )


def test_a_file_with_a_pool_whose_provider_was_unregistered_is_refused_at_its_place_in_the_file() -> None:
    desk = desk_with(*(UnregisterProvider(name) for name in "abc"))
    refusal = desk.refuses(Propose(replace(FILE, providers=(A,), pools=(PoolSpec("m", strategy="cost"),))))

    assert fault_and_path(refusal) == (ChangeFault.INVALID, "pools.m")
    assert refusal.reason.endswith("does not go with provider 'a' unregistered through the admin API")


def test_a_file_whose_alias_closes_a_circle_with_one_that_was_put_is_refused() -> None:
    desk = desk_with(PutAlias("one", "two"))

    refusal = desk.refuses(Propose(replace(FILE, aliases=(("two", "one"),))))

    assert refusal.path in ("aliases.one", "aliases.two")
    assert "alias 'one' put through the admin API" in refusal.reason


def test_a_file_that_is_wrong_by_itself_is_told_so_and_nothing_of_the_admin_api() -> None:
    desk = desk_with(SetStrategy("cost"))

    refusal = desk.refuses(Propose(replace(FILE, providers=(A, C), rules=(TO_B,))))

    assert refusal.path.startswith("rules[0].then[0].provider")
    assert "admin API" not in refusal.reason


def test_a_file_that_needs_what_the_admin_api_has_added_is_taken() -> None:
    desk = desk_with(RegisterProvider(D))
    to_d = replace(TO_B, then=(replace(TO_B.then[0], names=("d",)),))

    assert isinstance(desk.change(Propose(replace(FILE, rules=(to_d,)))), Configured)


def test_pain_21_a_change_after_a_refused_file_meets_the_file_before() -> None:
    desk = desk_with(SetDefault("c"))
    desk.refuses(Propose(replace(FILE, providers=(A, B))))

    desk.does(PatchProvider("c", weight=3))

    assert desk.in_force.providers == (A, B, replace(C, weight=3))


def test_a_successor_keeps_file_overlay_and_learned_lists() -> None:
    desk = desk_with(*SAID, RegisterProvider(LISTS), file=replace(FILE, rules=(ALWAYS_COST,)))
    desk.give(ModelsLearned("lister", (SMALL, LARGE)))
    in_force = desk.in_force
    desk.context.take_told()

    after = RegistryActor([Ref("router"), Ref("prober")], before=desk.actor, strategies=("adaptive", "cost", "random"))
    desk.actor = after
    after.start(desk.context)

    assert desk.context.take_told() == [("router", Configured(in_force)), ("prober", Configured(in_force))]
    assert desk.in_force == in_force
    desk.does(PatchProvider("b", weight=1))
    desk.change(Propose(FILE))
    assert desk.in_force.default_provider == "d"
    assert desk.spec("lister").models == (LARGE, SMALL)


class Dumb(SoloContext):
    """Its actor was told what it thinks it was asked."""

    def reply(self, message: Message) -> None:
        raise RuntimeError("this was no question")


def test_a_turn_that_was_left_half_way_has_changed_nothing() -> None:
    desk = Desk()
    before = desk.in_force
    for change in (RegisterProvider(D), SetDefault("b"), Propose(replace(FILE, providers=(B,)))):
        with pytest.raises(RuntimeError):
            Dumb("registry").give(desk.actor, change)
        assert desk.actor.invariant() is None
        assert desk.in_force == before
