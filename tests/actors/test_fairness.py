"""Turns between tenants: shares by tokens, priority that ages, nothing left behind."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.router.drain import Drain
from actors.router.fairness import FairQueue, Place
from actors.router.pending import head_start_s
from messages.policy import CRITICAL, LOW, NORMAL

Waiting = dict[Place, tuple[str, int]]


class Line:
    """A fair queue and what was put into it."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.waiting: Waiting = {}
        self.numbers = 0

    def put(self, tenant: str, tokens: int = 100, at: float = 0.0, early_s: float = 0.0) -> Place:
        self.numbers += 1
        place = (at - early_s, self.numbers)
        self.queue.put(place, tenant, tokens, early_s)
        self.waiting[place] = (tenant, tokens)
        assert self.queue.fault() is None
        return place

    def cancel(self, place: Place) -> None:
        self.queue.discard(place)
        del self.waiting[place]
        assert self.queue.fault() is None

    def pick(self, now: float = 1000.0) -> tuple[str, int]:
        """Tenant and tokens of who is next."""
        picked = self.queue.pick(now)
        assert picked is not None
        assert self.queue.fault() is None
        return self.waiting.pop(picked[0])

    def order(self, now: float = 1000.0) -> str:
        """The tenants of all, one letter each, in the order in which they are called."""
        return "".join(self.pick(now)[0] for _ in range(len(self.queue)))


def test_one_tenant_is_served_in_order() -> None:
    line = Line()
    for tokens in (500, 1, 10_000, 3):
        line.put("", tokens, at=float(line.numbers))
    assert [line.pick()[1] for _ in range(4)] == [500, 1, 10_000, 3]
    assert line.queue.pick(100.0) is None


def test_pain_25_a_tenant_that_comes_into_the_flood_of_another_is_next_but_one_at_most() -> None:
    line = Line()
    for number in range(1000):
        line.put("a", at=number / 100)
    for _ in range(500):
        assert line.pick(20.0)[0] == "a"
    line.put("b", at=20.0)
    assert "b" in (line.pick(20.1)[0], line.pick(20.1)[0])


def test_pain_25_equal_requests_of_two_floods_take_turns_though_one_came_first() -> None:
    line = Line()
    for tenant in "ab":
        for _ in range(10):
            line.put(tenant, at=float(line.numbers))
    assert sorted(line.order()[:10]) == list("aaaaabbbbb")


def test_pain_25_turns_are_weighed_by_tokens() -> None:
    line = Line()
    for number in range(400):
        line.put("long", 900, at=float(number))
        line.put("short", 100, at=float(number))
    served = [line.pick() for _ in range(200)]
    assert served.count(("short", 100)) == pytest.approx(9 * served.count(("long", 900)), rel=0.1)


def test_a_request_of_any_size_gets_its_turn() -> None:
    line = Line()
    for number in range(200):
        line.put("small", 100, at=float(number))
    line.put("big", 10_000, at=0.0)
    picks = [line.pick()[0] for _ in range(201)]
    # It comes when the other has had as much.
    assert picks.index("big") == pytest.approx(100, rel=0.05)


def test_more_urgent_overtakes_those_who_came_up_to_its_head_start_before_whatever_the_tenant() -> None:
    line = Line()
    line.put("a", at=1.0)
    line.put("b", at=4.0)
    line.put("c", at=8.0, early_s=5.0)
    assert line.order() == "acb"


def test_low_is_not_starved_by_the_flood_of_another_tenant() -> None:
    """The flood is normal and never ends; low waits for its five seconds, and a turn."""
    line = Line()
    line.put("low", at=0.0, early_s=-5.0)
    now, turns = 0.0, []
    for _ in range(100):
        line.put("flood", at=now)
        line.put("flood", at=now)
        turns.append((line.pick(now)[0], now))
        now += 0.1
    assert 5.0 <= next(at for tenant, at in turns if tenant == "low") <= 5.3


def test_whoever_is_critical_all_the_time_leaves_turns_to_the_others() -> None:
    line, now = Line(), 0.0
    for _ in range(10):
        line.put("quiet", at=0.0)
    waited = []
    for _ in range(1000):
        line.put("critical", at=now, early_s=3.0)
        line.put("critical", at=now, early_s=3.0)
        if line.pick(now)[0] == "quiet":
            waited.append(now)
        now += 0.1
    assert len(waited) == 10
    assert all(later - sooner < 3.5 for sooner, later in zip([0.0, *waited], waited, strict=False))


@pytest.mark.parametrize(("wait_max_s", "step_s"), [(10.0, 10 / 6), (30.0, 5.0), (600.0, 5.0), (0.0, 0.0)])
def test_no_head_start_is_longer_than_half_of_the_longest_wait(wait_max_s: float, step_s: float) -> None:
    assert head_start_s(NORMAL, wait_max_s) == 0.0
    assert head_start_s(CRITICAL, wait_max_s) - head_start_s(LOW, wait_max_s) == pytest.approx(3 * step_s)
    assert 3 * step_s <= max(wait_max_s / 2, 0.0)


def test_a_turn_of_which_nothing_came_costs_nothing_and_keeps_the_place() -> None:
    line = Line()
    first = line.put("a", at=0.0)
    line.put("a", at=1.0)
    line.put("b", at=2.0)
    for _ in range(20):
        picked = line.queue.pick(10.0)
        assert picked is not None
        place, charge = picked
        assert place == first
        line.queue.put(place, "a", 100, 0.0, charge)
    assert sorted(line.order()) == ["a", "a", "b"]


def test_turns_given_back_save_up_no_allowance() -> None:
    line = Line()
    for number in range(50):
        line.put("a", at=float(number))
        line.put("b", at=float(number))
    for _ in range(100):
        picked = [line.queue.pick(100.0) for _ in range(4)]
        for found in picked:
            assert found is not None
            tenant, tokens = line.waiting[found[0]]
            line.queue.put(found[0], tenant, tokens, 0.0, found[1])
    order = line.order()
    assert max(len(stretch) for stretch in order.replace("b", " ").split()) <= 3


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_tenants_that_always_have_somebody_waiting_get_the_same_tokens(seed: int, count: int) -> None:
    """Shreedhar and Varghese, theorem 2: for any stretch of turns, within a round's allowance and the largest requests."""
    rng, line, now, largest = Random(seed), Line(), 0.0, 0
    tenants = [f"t{number}" for number in range(count)]
    sizes = {tenant: rng.choice([(1, 10), (1000, 1000), (1, 5000), (200, 400)]) for tenant in tenants}
    for tenant in tenants:
        for _ in range(rng.randint(2, 30)):
            line.put(tenant, rng.randint(*sizes[tenant]), at=now)
    served = dict.fromkeys(tenants, 0)
    for _ in range(400):
        now += 0.01
        tenant, tokens = line.pick(now)
        served[tenant] += tokens
        largest = max(largest, tokens)
        line.put(tenant, rng.randint(*sizes[tenant]), at=now)
        largest = max(largest, *(size for _, size in line.waiting.values()))
    assert max(served.values()) - min(served.values()) <= 4 * largest


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_comes_and_goes_everybody_is_called_once_and_nothing_is_left_behind(seed: int) -> None:
    rng, line, now = Random(seed), Line(), 0.0
    for _ in range(200):
        now += rng.random()
        move = rng.random()
        if move < 0.5:
            tenant, early_s = rng.choice("abcde"), rng.choice([-5.0, 0.0, 5.0, 10.0])
            line.put(tenant, rng.randint(0, 5000), at=now - rng.random() * 3, early_s=early_s)
        elif move < 0.7 and line.waiting:
            line.cancel(rng.choice(sorted(line.waiting)))
        elif line.waiting:
            line.pick(now)
        assert len(line.queue) == len(line.waiting)
    while line.waiting:
        line.pick(now)
    queue = line.queue
    assert not any((queue._waiters, queue._accounts, queue._round, queue._tokens))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 60.0), st.sampled_from([-5.0, 0.0, 5.0, 10.0]), st.integers(0, 5000)), max_size=30))
def test_within_a_tenant_the_order_is_arrival_shifted_by_priority(waiters: list[tuple[float, float, int]]) -> None:
    line = Line()
    places = [line.put("a", tokens, at, early_s) for at, early_s, tokens in waiters]
    picked = [line.queue.pick(100.0) for _ in places]
    assert [found[0] for found in picked if found is not None] == sorted(places)


def test_what_is_ahead_is_ones_own_and_of_others_what_they_get_meanwhile() -> None:
    line = Line()
    assert line.queue.ahead_of("a", 100) == 100
    for _ in range(10):
        line.put("flood", 100)
    line.put("b", 50)
    assert line.queue.ahead_of("new", 200) == 200 + 200 + 50
    assert line.queue.ahead_of("b", 200) == 250 + 250
    assert line.queue.ahead_of("flood", 100) == 1100 + 50


def test_the_pace_of_a_line_is_what_left_it_while_somebody_waited() -> None:
    drain = Drain()
    drain.begin(0.0)
    assert drain.wait_s(100, 0.0) is None
    assert drain.wait_s(100, 2.0) == 2.0
    for second in range(1, 6):
        drain.went(100, float(second))
    assert drain.wait_s(1000, 5.0) == pytest.approx(10.0, rel=0.1)
    drain.begin(1000.0)
    assert drain.wait_s(1000, 1000.0) == pytest.approx(10.0, rel=0.1)
    assert (drain.wait_s(1000, 1020.0) or 0.0) > 40.0


def test_the_pace_follows_what_is_going_on() -> None:
    drain = Drain()
    drain.begin(0.0)
    for second in range(1, 200):
        drain.went(1000, float(second))
    for second in range(200, 400):
        drain.went(100, float(second))
    assert drain.wait_s(1000, 399.0) == pytest.approx(10.0, rel=0.15)


def test_a_turn_of_which_nothing_came_is_no_pace() -> None:
    drain = Drain()
    drain.begin(0.0)
    for second in range(1, 10):
        drain.went(100, float(second))
        drain.went(-100, float(second))
    assert drain.wait_s(100, 9.0) == pytest.approx(9.0, rel=0.2)
