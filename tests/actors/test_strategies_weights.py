"""``weighted``, ``smooth_weighted_round_robin``, ``weighted_random``: shares by weight, whoever comes and goes."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Memories, Memory
from actors.router.strategies.weights import learn_smooth
from messages.routing import Bid
from tests.actors.router_kit import bid
from tests.actors.strategy_desk import ASK, entries, order, plan, rank, won, won_beyond

FIVE_ONE_ONE = (bid("a", weight=5), bid("b"), bid("c"))
some_weights = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)


def bids_of(weights: list[int]) -> list[Bid]:
    return [bid(f"p{place}", weight=weight) for place, weight in enumerate(weights)]


def test_A5_weighted_is_the_counter_modulo_the_total_weight() -> None:
    assert "".join(won("weighted", 14, *FIVE_ONE_ONE)) == "aaaaabcaaaaabc"


@given(some_weights)
def test_A5_weighted_is_the_counter_modulo_the_total_weight_for_any_weights(weights: list[int]) -> None:
    cycle = [f"p{place}" for place, weight in enumerate(weights) for _ in range(weight)]
    assert won("weighted", 3 * len(cycle), *bids_of(weights)) == 3 * cycle


def test_A5_a_missing_weight_is_one_and_the_chain_follows_cyclically() -> None:
    memory, rng = Memory(), Random(0)
    chains = []
    for _ in range(7):
        chains.append("".join(order(rank("weighted", FIVE_ONE_ONE, memory, rng))))
        plan("weighted", FIVE_ONE_ONE, memory, rng)
    assert chains == ["abc", "abc", "abc", "abc", "abc", "bca", "cab"]


def test_D3_smooth_weighted_five_one_one_gives_a_a_b_a_c_a_a() -> None:
    assert "".join(won("smooth_weighted_round_robin", 14, *FIVE_ONE_ONE)) == "aabacaaaabacaa"


def nginx(weights: list[int], turns: int) -> list[str]:
    """The algorithm as nginx has it, in whole numbers."""
    current, winners = [0] * len(weights), []
    for _ in range(turns):
        for place, weight in enumerate(weights):
            current[place] += weight
        best = max((place for place, weight in enumerate(weights) if weight), key=lambda place: (current[place], -place))
        current[best] -= sum(weights)
        winners.append(f"p{best}")
    return winners


@given(some_weights)
def test_D3_smooth_weighted_does_what_nginx_does_while_all_bid(weights: list[int]) -> None:
    turns = 2 * sum(weights)
    assert won("smooth_weighted_round_robin", turns, *bids_of(weights)) == nginx(weights, turns)


@pytest.mark.parametrize("strategy", ["smooth_weighted_round_robin", "weighted"])
@given(weights=some_weights)
def test_each_gets_exactly_its_weight_in_every_round(strategy: str, weights: list[int]) -> None:
    counted = Counter(won(strategy, 2 * sum(weights), *bids_of(weights)))
    assert [counted[f"p{place}"] for place in range(len(weights))] == [2 * weight for weight in weights]


def test_weighted_random_three_to_one_gives_about_three_to_one_in_the_chain_too() -> None:
    bids, rng = [bid("a", weight=3), bid("b"), bid("c")], Random("three")
    chains = [order(rank("weighted_random", bids, rng=rng)) for _ in range(5000)]
    counted = Counter(chain[0] for chain in chains)
    assert 2850 < counted["a"] < 3150
    second = Counter(chain[1] for chain in chains if chain[0] == "b")
    assert 2.3 < second["a"] / second["c"] < 3.9


def test_trap_smooth_weighted_neither_underflows_nor_starves_when_a_heavy_one_leaves() -> None:
    memory, rng = Memory(), Random(0)
    light = [bid("a"), bid("b")]
    for _ in range(500):
        plan("smooth_weighted_round_robin", [bid("heavy", weight=1000), *light], memory, rng)
    after = [plan("smooth_weighted_round_robin", light, memory, rng) for _ in range(20)]
    assert 8 <= Counter(after)["a"] <= 12


def test_trap_smooth_weighted_forgets_an_old_debt_when_a_weight_is_lowered() -> None:
    memory, rng = Memory(), Random(0)
    for _ in range(1001):
        plan("smooth_weighted_round_robin", [bid("a", weight=1000), bid("b", weight=999)], memory, rng)
    after = [plan("smooth_weighted_round_robin", [bid("a"), bid("b")], memory, rng) for _ in range(12)]
    assert 4 <= Counter(after)["a"] <= 8


def test_trap_smooth_weighted_does_not_let_a_returning_one_take_all_it_missed() -> None:
    memory, rng = Memory(), Random(0)
    rest, away = [bid("a", weight=2), bid("b", weight=2)], bid("away", weight=5)
    for _ in range(3):
        plan("smooth_weighted_round_robin", [*rest, away], memory, rng)
    for _ in range(1000):
        plan("smooth_weighted_round_robin", rest, memory, rng)
    back = [plan("smooth_weighted_round_robin", [*rest, away], memory, rng) for _ in range(18)]
    assert 9 <= Counter(back)["away"] <= 12


def test_trap_an_unhealthy_one_saves_up_no_credit_while_it_may_not_win() -> None:
    memory, strategy = Memory(), STRATEGIES["smooth_weighted_round_robin"]
    healthy, ill, full = [bid("a"), bid("b")], bid("ill", healthy=False), bid("full", room=0)
    for _ in range(10):
        tiers = [strategy.rank(tier, ASK, memory, Random(0)) for tier in (healthy, [ill], [full])]
        learn_smooth(memory, [pair for tier in tiers for pair in tier])
    assert memory.credits == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("strategy", ["smooth_weighted_round_robin", "weighted"])
def test_a_preference_now_and_then_takes_nobodys_share_for_ever(strategy: str) -> None:
    memory, rng = Memory(), Random(0)
    counted: Counter[str] = Counter()
    for turn in range(600):
        name = plan(strategy, FIVE_ONE_ONE, memory, rng, prefer="b" if turn % 3 == 0 else "")
        if turn % 3:
            counted[name] += 1
    assert counted["a"] > 5 * counted["b"]
    assert counted["c"] > 20


@pytest.mark.parametrize(
    ("preferred", "then"),
    [("abb", "ab"), ("aaa", "b")],
    ids=["its second call in a row ends no round: the other still has one", "calls beyond its weight count all the same"],
)
def test_A5_calls_that_go_to_one_for_a_preference_count_and_end_no_round(preferred: str, then: str) -> None:
    memory, rng, two_one = Memory(), Random(0), (bid("a", weight=2), bid("b"))
    for name in preferred:
        plan("weighted", two_one, memory, rng, prefer=name)
    assert [plan("weighted", two_one, memory, rng) for _ in then] == list(then)


def test_trap_who_has_no_room_saves_up_no_credit_behind_the_winner() -> None:
    memory = Memory()
    learn_smooth(memory, [(-3.0, bid("a")), (-1.0, bid("full", room=0))])
    assert memory.credits == {"a": 2.0}


@pytest.mark.parametrize("strategy", ["smooth_weighted_round_robin", "weighted"])
def test_weights_hold_among_those_whom_all_requests_prefer(strategy: str) -> None:
    memory, chosen, counted = Memory(), STRATEGIES[strategy], Counter[str]()
    for _ in range(600):
        ranked = chosen.rank([bid("other", weight=9), *FIVE_ONE_ONE], ASK, memory, Random(0))
        ranked.sort(key=lambda pair: pair[1].provider == "other")
        assert chosen.learn is not None
        chosen.learn(memory, ranked)
        memory.note(ranked[0][1].provider)
        counted[memory.winner] += 1
    assert counted["other"] == 0
    assert 420 <= counted["a"] <= 435
    assert 82 <= counted["b"] <= 90


@pytest.mark.parametrize("strategy", ["smooth_weighted_round_robin", "weighted"])
def test_weights_hold_among_those_a_rule_names_while_others_stand_behind_them(strategy: str) -> None:
    memory, chosen, counted = Memory(), STRATEGIES[strategy], Counter[str]()
    for _ in range(600):
        tiers = [chosen.rank(tier, ASK, memory, Random(0)) for tier in (list(FIVE_ONE_ONE), [bid("other", weight=9)])]
        ranked = [pair for tier in tiers for pair in tier]
        assert chosen.learn is not None
        chosen.learn(memory, ranked)
        memory.note(ranked[0][1].provider)
        counted[memory.winner] += 1
    assert counted["other"] == 0
    assert 425 <= counted["a"] <= 432
    assert 84 <= counted["b"] <= 88


def test_credits_of_providers_that_are_gone_are_forgotten() -> None:
    memories = Memories()
    memory = memories.of("smooth_weighted_round_robin", "m")
    plan("smooth_weighted_round_robin", FIVE_ONE_ONE, memory, Random(0))
    memories.keep_only({"a", "b"})
    assert set(memory.credits) == {"a", "b"}


@pytest.mark.parametrize("strategy", ["weighted", "smooth_weighted_round_robin", "weighted_random", "least_connections"])
def test_a_heavy_one_gets_its_share_beyond_the_fan_out_too(strategy: str) -> None:
    found = entries(40, lambda place: {"weight": 39 if place == 20 else 1})
    counted = won_beyond(strategy, 3900, found, 4)
    assert 1800 < counted["p020"] < 2100
    assert all(counted[entry.id] > 20 for entry in found)


def test_weighted_is_exact_beyond_the_fan_out_while_all_bid() -> None:
    found = entries(20, lambda place: {"weight": place % 4})
    counted = won_beyond("weighted", 3 * 30, found, 4)
    assert {entry.id: counted[entry.id] for entry in found} == {entry.id: 3 * entry.spec.weight for entry in found}


def test_weighted_random_is_exact_beyond_the_fan_out_whatever_the_weights() -> None:
    found = entries(12, lambda place: {"weight": 1 + place})
    counted = won_beyond("weighted_random", 7800, found, 3)
    for entry in found:
        share = 100 * entry.spec.weight
        assert abs(counted[entry.id] - share) < 4 * share**0.5
