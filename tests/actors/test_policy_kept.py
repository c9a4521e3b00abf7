"""What policy keeps between requests: courses of names of the configuration, and nothing for names that anybody may make up."""

from typing import cast

from actors.router.policy import Course, Policy
from actors.router.strategies import STRATEGIES
from actors.router.table import RoutingTable
from messages.policy import ChainStep, PoolRule, PoolSpec, TenantSpec
from messages.routing import Hints, RequestProfile, RouteError
from tests.actors.router_kit import provider, snapshot

WHENEVER = 0.0


def course(policy: Policy, model: str, tenant: str = "", hints: Hints | None = None) -> Course | RouteError:
    profile = RequestProfile(model, tenant=tenant) if hints is None else RequestProfile(model, tenant=tenant, hints=hints)
    return policy.course(profile, lambda: WHENEVER)


def policy(*pools: PoolSpec, strategy: str = "adaptive", tenants: tuple[TenantSpec, ...] = ()) -> Policy:
    specs = (provider("any", takes_any=True), provider("a", "m", "n"), provider("b", "m"))
    aliases = {"short": "m", "astray": "a:nothing"}
    config = snapshot(*specs, default="any", aliases=aliases, strategy=strategy, pools=pools, tenants=tenants)
    return Policy(config, RoutingTable.build(config), STRATEGIES)


def test_D11_the_course_of_a_listed_name_or_an_alias_is_worked_out_once() -> None:
    found = policy()
    for name in ("m", "n", "short"):
        assert course(found, name) is course(found, name)
    assert isinstance(course(found, "m"), Course)
    assert course(found, "astray") is RouteError.MODEL_NOT_SUPPORTED


def test_pain_01_of_names_that_nobody_configured_none_is_kept() -> None:
    found = policy()
    for name in ("made-up", "a:m", "openai/n"):
        one, other = course(found, name), course(found, name)
        assert isinstance(one, Course)
        assert one is not other


def test_D2_what_depends_on_more_than_the_name_is_worked_out_for_each_request() -> None:
    tenants = (TenantSpec("acme", preferred_providers=("b",)),)
    for found in (
        policy(PoolSpec("m", rules=(PoolRule((("tier", "free"),), deny=True),))),
        policy(PoolSpec("m", chain=(ChainStep(("a",)),))),
    ):
        assert course(found, "m") is not course(found, "m")
        assert course(found, "n") is course(found, "n")
    for tenant, hints in (("acme", None), ("", Hints(zone="z"))):
        found = policy(tenants=tenants)
        assert course(found, "m", tenant, hints) is not course(found, "m", tenant, hints)
    assert course(policy(tenants=tenants), "m", "nobody's") is not None


def test_D4_a_strategy_that_is_gone_is_told_wherever_it_was_named() -> None:
    gone = "of-a-plugin-that-is-gone"
    for found, tenant in (
        (policy(strategy=gone), ""),
        (policy(PoolSpec("m", strategy=gone)), ""),
        (policy(tenants=(TenantSpec("acme", strategy=gone),)), "acme"),
    ):
        assert course(found, "m", tenant) is RouteError.STRATEGY_NOT_FOUND


def test_C1_the_order_kept_of_a_model_is_neither_that_of_a_pin_nor_that_of_an_older_configuration() -> None:
    def made(*names: str) -> Policy:
        config = snapshot(*(provider(name, "m") for name in names), strategy="cost")
        return Policy(config, RoutingTable.build(config), STRATEGIES)

    def order(of: Policy, asked: Course | RouteError) -> list[str]:
        assert isinstance(asked, Course)
        return [entry.id for entry in of.order(asked)[0]]

    before, now = made("gone", "a", "b"), made("a", "b")
    still_under_way = course(before, "m")
    for asked, names in ((still_under_way, ["gone", "a", "b"]), (course(now, "b:m"), ["b"]), (course(now, "m"), ["a", "b"])):
        assert order(now, asked) == names
    assert now.order(cast(Course, course(now, "m")))[0] is now.order(cast(Course, course(now, "m")))[0]
