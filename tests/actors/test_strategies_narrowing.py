"""Whom a strategy asks of more candidates than ``routing.fanout``."""

from collections import Counter
from itertools import pairwise
from math import inf, sqrt
from random import Random
from statistics import NormalDist, mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Memories, Memory, sampled
from actors.router.strategies.narrowing import by_weight, list_price, sampled_by_weight, turn_by_weight
from actors.router.table import Entry, RoutingTable
from messages.control import ModelSpec, ProviderSpec
from tests.actors.router_kit import snapshot
from tests.actors.strategy_desk import EVERY, entries, narrowed, won_beyond


def various(place: int) -> dict[str, Any]:
    kinds = ("chat", "tools", "vision", "json")
    return {"weight": place % 5, "priority": place % 3, "capabilities": kinds[: 1 + place % 4]}


def priced(*prices: float | None) -> tuple[Entry, ...]:
    specs = [
        ProviderSpec(f"p{place:03}", "openai", "http://x", "c", (ModelSpec("m", "m", price, price),))
        for place, price in enumerate(prices)
    ]
    route = RoutingTable.build(snapshot(*specs)).find("m")
    assert route is not None
    return route.entries


def ids(found: list[Entry]) -> list[str]:
    return [entry.id for entry in found]


@pytest.mark.parametrize("strategy", EVERY)
@given(size=st.integers(2, 60), turn=st.integers(0, 500), seed=st.integers(), data=st.data())
def test_every_strategy_asks_exactly_so_many_each_once(
    strategy: str, size: int, turn: int, seed: int, data: st.DataObject
) -> None:
    found, count = entries(size, various), data.draw(st.integers(1, size - 1))
    asked = narrowed(strategy, found, Memory(turn=turn), Random(seed), count)
    assert len(asked) == count == len(set(ids(asked)))
    assert set(ids(asked)) <= set(ids(list(found)))


@pytest.mark.parametrize("strategy", EVERY)
def test_every_strategy_can_pick_from_candidates_that_were_filtered(strategy: str) -> None:
    chosen = STRATEGIES[strategy]
    found = entries(30, various)
    index = found if chosen.index is None else chosen.index(found, "m")
    filtered = [entry for entry in index if entry.id != "p007"]
    for seed in range(20):
        asked = ids(chosen.narrow(filtered, Memory(turn=seed), Random(seed), 8))
        assert len(set(asked)) == 8
        assert "p007" not in asked


@pytest.mark.parametrize("strategy", EVERY)
def test_an_index_holds_everybody_once(strategy: str) -> None:
    found, index = entries(30, various), STRATEGIES[strategy].index
    assert index is None or sorted(ids(list(index(found, "m")))) == ids(list(found))


@pytest.mark.parametrize("strategy", ["weighted", "weighted_random", "smooth_weighted_round_robin", "least_connections"])
def test_nothing_breaks_where_nobody_has_any_weight(strategy: str) -> None:
    found = entries(9, lambda place: {"weight": 0})
    assert len(narrowed(strategy, found, Memory(), Random(0), 4)) == 4


def test_B2_priority_asks_the_highest_first() -> None:
    found = entries(30, lambda place: {"priority": place // 10})
    assert ids(narrowed("priority", found, Memory(), Random(0), 3)) == ["p020", "p021", "p022"]


def test_C1_cost_asks_the_cheapest_by_the_price_list_and_unknown_prices_last() -> None:
    found = priced(3.0, None, 0.0, 2.0, 1.0, None, 9.0)
    assert ids(narrowed("cost", found, Memory(), Random(0), 3)) == ["p002", "p004", "p003"]
    assert set(ids(narrowed("cost", found, Memory(), Random(0), 6))) > {"p000", "p002", "p003", "p004", "p006"}


def test_C1_cost_samples_the_equals_that_do_not_all_fit_in() -> None:
    found = priced(5.0, *([1.0] * 10), 0.0, 7.0)
    counted: Counter[str] = Counter()
    for seed in range(300):
        asked = ids(narrowed("cost", found, Memory(), Random(seed), 4))
        assert asked[0] == "p011"
        counted.update(asked[1:])
    assert set(counted) == {f"p{place:03}" for place in range(1, 11)}
    assert all(60 < count < 120 for count in counted.values())


def test_C1_capability_asks_those_with_the_fewest_capabilities() -> None:
    found = entries(20, lambda place: {"capabilities": ("chat", "tools") if place % 5 else ("chat",)})
    assert ids(narrowed("capability", found, Memory(), Random(0), 4)) == ["p000", "p005", "p010", "p015"]


@pytest.mark.parametrize("strategy", ["random", "round_robin", "weighted", "weighted_random", "smooth_weighted_round_robin"])
def test_equals_get_equal_shares_beyond_the_fan_out_and_nobody_starves(strategy: str) -> None:
    counted = won_beyond(strategy, 4000, entries(40), 6)
    assert len(counted) == 40
    assert all(60 < count < 145 for count in counted.values())


FALSE_ALARM = 1e-6
"""How often each of the two bounds on shares in a burst would be passed, were chance drawn anew, by a window that is right."""


def variance_in_a_burst(strategy: str, decisions: int, size: int, count: int) -> float:
    """Of the decisions that one of ``size`` equals wins where ``count`` are asked, by the law of the window.

    In each decision the window drops its oldest and draws one of those it does not keep. So who is drawn stays for
    ``count`` moves, and is drawn again after a number of moves that is geometric with p = 1 / (size - count + 1): a renewal
    process of cycles of ``size`` moves in the mean, with the variance (1 - p) / p². Over m moves there are stays with the
    variance m x that / size³ (Feller, *Probability Theory* II, XI.1).

    Where one is drawn by weight beside the window, he is another one after each move, and in 1 - count / size of the moves
    the newest of the window has no place: a stay counts for one move less, and who is asked differs by one draw for each move.

    Who is asked wins one in ``count`` decisions, by a draw; smooth round robin draws nothing and owes nobody.
    """
    moves, p = decisions, 1 / (size - count + 1)
    stays = moves * (1 - p) / p**2 / size**3
    asked = count**2 * stays
    if strategy != "random":
        newest, outside = count / size, 1 / size
        asked = (count - 1) ** 2 * stays + moves * (newest * (1 - newest) + (size - count) * outside * (1 - outside)) / size
    won = 0.0 if strategy == "smooth_weighted_round_robin" else moves * count / size / count * (1 - 1 / count)
    return asked / count**2 + won


@pytest.mark.parametrize("strategy", ["random", "weighted_random", "smooth_weighted_round_robin", "least_connections"])
def test_in_a_burst_equals_get_equal_shares_too_though_samples_change_by_one_in_each_decision(strategy: str) -> None:
    """The shares are as equal as the law of the window lets them be.

    All together: their squared deviations, of the variance that it gives them, are chi-square with 39 degrees of freedom (they
    add up to 0); the bound is passed in one of a million runs (Wilson and Hilferty's approximation). Each alone: none is
    further from the mean than one of 40 normal ones is in one of a million runs, which is five and a half deviations.
    """
    decisions, size, count = 40_000, 40, 6
    counted, mean_wins = won_beyond(strategy, decisions, entries(size), count, pause_s=0.0), decisions / size
    variance, normal, free = variance_in_a_burst(strategy, decisions, size, count), NormalDist(), size - 1
    together = free * (1 - 2 / (9 * free) + normal.inv_cdf(1 - FALSE_ALARM) * sqrt(2 / (9 * free))) ** 3
    alone = normal.inv_cdf(1 - FALSE_ALARM / (2 * size)) * sqrt(variance)

    assert len(counted) == size
    assert sum((wins - mean_wins) ** 2 for wins in counted.values()) * free / size / variance < together
    assert max(abs(wins - mean_wins) for wins in counted.values()) < alone < 0.35 * mean_wins


SAMPLING = [name for name, strategy in STRATEGIES.items() if strategy.narrow is sampled]


def test_the_strategies_that_ask_a_random_sample_are_known() -> None:
    assert {"adaptive", "least_latency", "least_requests", "power_of_two", "random", "thompson"} <= set(SAMPLING)


def windows(passed: list[tuple[int, bool]], size: int = 40, count: int = 8) -> list[set[str]]:
    """Samples of one memory, so many half ms one after the other, each with the last winner's plan still open or not."""
    found, memory, rng, now, asked = entries(size), Memory(), Random(0), 5.0, []
    for half_ms, is_crowded in passed:
        now += half_ms / 2000 + 1e-6
        memory.freshen(now, is_crowded)
        asked.append(set(ids(sampled(found, memory, rng, count))))
        memory.note("p000")
    return asked


@given(passed=st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=20))
def test_a_sample_has_one_candidate_anew_for_each_half_ms_that_passed_and_else_one_while_plans_are_open(
    passed: list[tuple[int, bool]],
) -> None:
    asked = windows(passed)
    for (half_ms, is_crowded), (before, after) in zip(passed[1:], pairwise(asked), strict=True):
        assert len(after - before) <= min(8, half_ms or int(is_crowded))


def test_a_sample_stays_while_no_time_passes_and_no_plan_is_open_and_changes_by_one_in_a_crowd() -> None:
    quiet, crowded = (
        [len(after - before) for before, after in pairwise(windows([(0, is_crowded)] * 400))] for is_crowded in (False, True)
    )
    assert set(quiet) == {0}
    assert set(crowded) == {0, 1}  # Whoever leaves may be drawn again.
    assert mean(crowded) == pytest.approx(1 - 1 / 33, abs=0.05)


def test_decisions_far_apart_sample_wholly_anew() -> None:
    alike = [len(before & after) for before, after in pairwise(windows([(2000, False)] * 400))]
    assert mean(alike) == pytest.approx(8 * 8 / 40, rel=0.2)


def test_a_reload_that_brings_other_candidates_draws_all_anew() -> None:
    memory, rng, other = Memory(), Random(0), entries(12)
    sampled(entries(40), memory, rng, 8)
    assert set(ids(sampled(other, memory, rng, 8))) <= set(ids(list(other)))
    assert len(memory.window) == 8
    memories = Memories()
    sampled(other, memories.of("random", "m"), rng, 8)
    memories.keep_only({"p000"})
    assert not memories.of("random", "m").drawn_from


@given(counts=st.lists(st.integers(1, 11), min_size=1, max_size=30), seed=st.integers())
def test_a_window_gives_exactly_as_many_as_are_wanted_however_that_changes(counts: list[int], seed: int) -> None:
    found, memory, rng = entries(12), Memory(), Random(seed)
    for count in counts:
        assert len(set(ids(sampled(found, memory, rng, count)))) == count


class AlwaysLeast(Random):
    """Draws the least there is."""

    def random(self) -> float:
        return 0.0


def test_A5_the_window_of_weighted_begins_where_the_counter_stands() -> None:
    found = by_weight(entries(4, lambda place: {"weight": (2, 0, 1, 1)[place]}), "m")
    begins = [turn_by_weight(found, Memory(turn=turn), Random(0), 2)[0].id for turn in range(5)]
    assert begins == ["p000", "p000", "p002", "p003", "p000"]


def test_weight_0_is_never_the_one_drawn_by_weight() -> None:
    found = by_weight(entries(30, lambda place: {"weight": 0 if place < 20 else 1}), "m")
    memory = Memory(fresh=1)
    assert sampled_by_weight(found, memory, AlwaysLeast(0), 1)[0].id == "p020"


def test_the_one_drawn_by_weight_stays_until_others_are_drawn_anew_or_there_are_other_candidates() -> None:
    many, few = by_weight(entries(60), "m"), by_weight(entries(20), "m")
    memory, rng = Memory(fresh=1), Random("stays")
    sampled_by_weight(many, memory, rng, 4)
    memory.fresh, memory.first = 0, 50
    assert [sampled_by_weight(many, memory, rng, 4)[0].id for _ in range(20)] == ["p050"] * 20
    assert sampled_by_weight(few, memory, rng, 4)[0] in few


def test_half_a_price_that_is_known_is_known() -> None:
    half = ProviderSpec("half", "openai", "http://x", "c", (ModelSpec("m", "m", None, 3.0),))
    route = RoutingTable.build(snapshot(half)).find("m")
    assert route is not None
    assert list_price(route.entries[0], "m") == 3.0
    assert list_price(priced(None)[0], "m") == inf
