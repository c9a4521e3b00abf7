"""Beyond the fan-out: whom policy puts first is asked first, whatever the strategy's own order."""

import pytest

from actors.router.candidates import with_plans
from messages.control import Configured, ModelSpec
from messages.policy import Action, ActionKind, ChainStep, PoolSpec, Rule, TenantSpec
from messages.routing import NO_HINTS, Claimed, Hints, RequestProfile, Withdraw
from tests.actors.router_kit import Desk, bid, chain, full, provider, snapshot

MANY = tuple(provider(f"p{number:02}", "m") for number in range(40))


@pytest.mark.parametrize("strategy", ["first", "adaptive", "round_robin", "cost", "weighted"])
def test_A4_those_a_rule_names_are_asked_first_and_others_only_as_far_as_there_is_room(strategy: str) -> None:
    named = ("p30", "p39")
    desk = Desk(*MANY, strategy=strategy, rules=[Rule("r", then=(Action(ActionKind.PROVIDERS, named),))])
    query_id = desk.ask()

    assert set(named) < set(desk.asked())
    assert len(desk.asked()) == 16
    desk.gathered(*(bid(name, cost_usd=0.5 if name in named else 0.0) for name in desk.asked()))
    assert set(chain(desk.plan(query_id))[:2]) == set(named)


@pytest.mark.parametrize("strategy", ["first", "adaptive", "round_robin", "cost", "weighted"])
def test_A4_of_more_named_ones_than_are_asked_at_once_nobody_else_is_asked_before_them(strategy: str) -> None:
    named = tuple(spec.id for spec in MANY[10:])
    desk = Desk(*MANY, strategy=strategy, rules=[Rule("r", then=(Action(ActionKind.PROVIDERS, named),))])
    desk.ask()

    assert len(desk.asked()) == 16
    assert set(desk.asked()) <= set(named)


def test_A4_where_none_of_them_can_take_the_call_the_others_are_asked_in_turn() -> None:
    desk = Desk(*MANY, strategy="first", fanout=2, rules=[Rule("r", then=(Action(ActionKind.PROVIDERS, ("p30", "p39")),))])
    query_id = desk.ask()

    assert desk.asked() == ("p30", "p39")
    desk.gathered(full("p30"), full("p39"))
    assert desk.asked() == ("p00", "p01")
    desk.gathered(bid("p00"), bid("p01"))
    assert chain(desk.plan(query_id)) == ["p00", "p01"]


def test_D8_of_a_failover_chain_the_first_steps_are_asked_first() -> None:
    pool = PoolSpec("m", chain=(ChainStep(("p39", "p38")), ChainStep()))
    desk = Desk(*MANY, strategy="first", fanout=3, pools=[pool])
    desk.ask()

    assert desk.asked() == ("p00", "p38", "p39")


STRATEGIES = ["first", "priority", "adaptive", "round_robin", "cost", "least_connections", "weighted", "thompson"]
PLACED = tuple(
    provider(f"p{number:02}", "m", region="eu" if number >= 30 else "us", zone="z" if number in (5, 39) else "")
    for number in range(40)
)
ACME = TenantSpec("acme", preferred_providers=("p37", "p36"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("hints", "tenant", "wanted"),
    [
        (Hints(prefer=("p39", "nobody", "p38")), "", ["p39", "p38"]),
        (NO_HINTS, "acme", ["p37", "p36"]),
        (Hints(prefer=("p39",)), "acme", ["p39", "p37", "p36"]),
        (Hints(zone="z"), "", ["p05", "p39"]),
        (Hints(regions=("eu",), zone="z"), "", ["p39"]),
    ],
)
def test_D9_D2_whom_request_or_tenant_prefer_is_asked_however_many_there_are(
    strategy: str, hints: Hints, tenant: str, wanted: list[str]
) -> None:
    desk = Desk(*PLACED, strategy=strategy, tenants=[ACME])
    query_id = desk.ask(profile=RequestProfile("m", tenant=tenant, hints=hints))
    assert len(desk.asked()) == 16

    desk.gathered(*(bid(name) for name in desk.asked()))
    found = chain(desk.plan(query_id))[: len(wanted)]
    assert (sorted(found) if hints.zone else found) == wanted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_D9_of_more_in_a_preferred_region_than_are_asked_the_strategy_chooses_and_nobody_else_is_asked(strategy: str) -> None:
    desk = Desk(*PLACED, strategy=strategy, fanout=4)
    seen: set[str] = set()
    for _ in range(60):
        query_id = desk.ask(profile=RequestProfile("m", hints=Hints(regions=("eu",))))
        seen |= set(desk.asked())
        desk.gathered(*(bid(name) for name in desk.asked()))
        desk.give(Claimed(query_id, desk.plan(query_id).choices[0].provider, True))
        desk.context.advance(1.0)

    eu = {spec.id for spec in PLACED[30:]}
    assert seen == ({"p30", "p31", "p32", "p33"} if strategy in ("first", "priority", "cost") else eu)


def test_B2_where_none_of_the_highest_can_take_the_call_the_next_highest_are_asked() -> None:
    specs = [provider(f"p{number:02}", "m", priority=number) for number in range(40)]
    desk = Desk(*specs, strategy="priority")
    query_id = desk.ask()
    for first, last in ((24, 40), (8, 24)):
        assert desk.asked() == tuple(spec.id for spec in specs[first:last])
        desk.gathered(*(full(name) for name in desk.asked()))
    desk.gathered(*(bid(name, priority=place) for place, name in enumerate(desk.asked())))

    assert chain(desk.plan(query_id)) == [f"p{number:02}" for number in range(7, -1, -1)]


def test_C1_where_none_of_the_cheapest_can_take_the_call_the_next_cheapest_are_asked() -> None:
    specs = [provider(f"p{n:02}", models=(ModelSpec("m", "m", input_price=40.0 - n, output_price=1.0),)) for n in range(40)]
    desk = Desk(*specs, strategy="cost", fanout=10)
    desk.ask()
    desk.gathered(*(full(name) for name in desk.asked()))

    assert desk.asked() == tuple(spec.id for spec in specs[20:30])


def test_D8_the_next_steps_of_a_chain_are_asked_next() -> None:
    pool = PoolSpec("m", chain=(ChainStep(("p39", "p38")), ChainStep(("p20", "p21")), ChainStep()))
    desk = Desk(*MANY, strategy="first", fanout=2, pools=[pool])
    desk.ask()
    asked = [desk.asked()]
    for _ in range(2):
        desk.gathered(*(full(name) for name in desk.asked()))
        asked.append(desk.asked())

    assert asked == [("p38", "p39"), ("p20", "p21"), ("p00", "p01")]


def test_D9_whom_a_request_excludes_takes_no_place_among_those_asked() -> None:
    desk = Desk(*MANY, strategy="adaptive", fanout=4)
    desk.ask(profile=RequestProfile("m", hints=Hints(exclude=tuple(spec.id for spec in MANY[4:]))))

    assert desk.asked() == ("p00", "p01", "p02", "p03")


@pytest.mark.parametrize(
    "strategy", ["adaptive", "least_latency", "least_requests", "power_of_two", "thompson", "optimize_cost"]
)
def test_D9_neither_the_last_winner_nor_the_best_of_the_last_sample_is_asked_where_a_request_bars_them(strategy: str) -> None:
    desk = Desk(*MANY, strategy=strategy, fanout=8)
    for turn in range(20):
        query_id = desk.ask(query_id=f"free-{turn}")
        asked = desk.asked()
        desk.gathered(*(bid(name, latency_p50_s=0.1 + place, expected_s=0.1 + place) for place, name in enumerate(asked)))
        winner = desk.plan(query_id).choices[0].provider
        barred = (winner, *[name for name in asked if name != winner][:5])

        desk.ask(query_id=f"barred-{turn}", profile=RequestProfile("m", hints=Hints(exclude=barred)))

        assert set(desk.asked()).isdisjoint(barred)
        # Of the best of the last sample two are left, who may be drawn as well.
        assert len(desk.asked()) in (6, 7, 8)
        desk.gathered(*(full(name) for name in desk.asked()))
        desk.give(Withdraw(f"barred-{turn}"))


def test_D11_the_last_winner_is_asked_again_also_by_a_request_that_bars_others() -> None:
    desk = Desk(*MANY, strategy="least_requests", fanout=4)
    query_id = desk.ask()
    desk.gathered(*(bid(name) for name in desk.asked()))
    winner = desk.plan(query_id).choices[0].provider
    for turn in range(20):
        others = tuple(spec.id for spec in MANY if spec.id != winner)[turn : turn + 3]
        desk.ask(profile=RequestProfile("m", hints=Hints(exclude=others)))
        assert winner in desk.asked()


def test_D11_room_that_is_promised_to_plans_on_their_way_is_no_room() -> None:
    desk = Desk(provider("a", "m"), provider("b", "m"), strategy="first")

    won = [chain(desk.decide(bid("a", room=2), bid("b", room=9))) for _ in range(4)]

    assert won == [["a", "b"], ["a", "b"], ["b", "a"], ["b", "a"]]


def test_D11_a_query_that_comes_again_gives_up_the_plan_it_had() -> None:
    desk = Desk(provider("a", "m"), provider("b", "m"), strategy="first")
    bids = (bid("a", room=1), bid("b", room=9))
    assert chain(desk.decide(*bids, query_id="again")) == ["a", "b"]
    assert chain(desk.decide(*bids, query_id="other")) == ["b", "a"]
    assert chain(desk.decide(*bids, query_id="again")) == ["a", "b"]

    desk.ask(query_id="again")
    desk.give(Withdraw("again"))

    assert chain(desk.decide(*bids)) == ["a", "b"]
    assert desk.actor.invariant() is None


def test_D11_plans_made_before_a_reload_count_after_it_and_others_with_them() -> None:
    a, b = provider("a", "m"), provider("b", "m")
    desk = Desk(a, b, strategy="first")
    bids = (bid("a", room=2), bid("b", room=9))
    query_id = desk.ask()
    desk.gathered(*bids)

    won = list[list[str]]()
    for generation, specs in enumerate(((a, b), (b,), (a, b)), 2):
        desk.give(Configured(snapshot(*specs, generation=generation, strategy="first")))
        won.append(chain(desk.decide(*(bid for bid in bids if bid.provider in [spec.id for spec in specs]))))
    desk.give(Claimed(query_id, "a", True))

    assert won == [["a", "b"], ["b"], ["b", "a"]]
    assert chain(desk.decide(*bids)) == ["a", "b"]


@pytest.mark.parametrize(
    ("in_flight", "plans", "stretched"),
    [(0, 7, 1.0), (0, 8, 1.0 + 0.9 / 8), (0, 16, 1.0 + 0.9 * 9 / 8), (9, 2, 1.0 + 0.9 * 2 / 10)],
)
def test_D11_plans_on_their_way_count_as_calls_and_stretch_the_expected_time_beyond_eight(
    in_flight: int, plans: int, stretched: float
) -> None:
    found = with_plans(bid("a", in_flight=in_flight, expected_s=1.0, room=30, samples=0, exploring=1), plans)

    assert (found.in_flight, found.room, found.exploring) == (in_flight + plans, 30 - plans, 1 + plans)
    assert found.expected_s == pytest.approx(stretched)
    known = bid("a", samples=5)
    assert with_plans(known, plans).exploring == 0
    assert with_plans(known, plans).room is None


@pytest.mark.parametrize("strategy", ["first", "priority", "cost"])
def test_B2_an_order_is_kept_to_also_after_one_further_down_has_won(strategy: str) -> None:
    specs = [
        provider(f"p{n:02}", priority=-n, models=(ModelSpec("m", "m", input_price=1.0 + n, output_price=1.0),))
        for n in range(40)
    ]
    desk = Desk(*specs, strategy=strategy, fanout=4)
    query_id = desk.ask()
    desk.gathered(*(full(name) for name in desk.asked()))
    desk.gathered(*(bid(name, cost_usd=0.5) for name in desk.asked()))
    assert desk.plan(query_id).choices[0].provider not in {"p00", "p01", "p02", "p03"}

    desk.ask()

    assert desk.asked() == ("p00", "p01", "p02", "p03")
