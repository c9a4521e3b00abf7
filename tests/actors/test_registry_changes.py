"""What the admin API changes comes into force at once as a new generation, or is refused and changes nothing."""

from dataclasses import replace

import pytest

from actors.kernel import Ref
from actors.registry import RegistryActor
from actors.registry.overlay import Overlay
from actors.registry.verdict import TOLD_MAX, change_refusal, file_refusal
from messages.changes import (
    Change,
    Changed,
    ChangeFault,
    ChangeRefused,
    DeleteAlias,
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
from messages.control import ConfigSnapshot, Configured, ModelsLearned, ModelSpec, Propose, ProviderSpec, RoutingSpec
from messages.policy import Action, ActionKind, ChainStep, Condition, ConditionKind, PoolSpec, Rule, TenantSpec
from tests.actors.test_registry import LISTS, SMALL, Registry

M = (ModelSpec("m", "m"),)
A, B, C, D = (ProviderSpec(name, "openai", f"http://{name}", "fp", models=M) for name in "abcd")
TO_B = Rule("to-b", then=(Action(ActionKind.PROVIDERS, ("b",)),))
ALWAYS_COST = Rule("cost", then=(Action(ActionKind.STRATEGY, ("cost",)),))
ACME = TenantSpec("acme", allowed_providers=("a", "b"), strategy="cost")
FILE = ConfigSnapshot(0, (A, B, C), "a", (("gpt4", "m"), ("small", "m")), RoutingSpec(strategy="adaptive"))


class Desk(Registry):
    """A registry with a file in force, and what a change does there."""

    def __init__(self, file: ConfigSnapshot = FILE, actor: RegistryActor | None = None) -> None:
        super().__init__(actor or RegistryActor([Ref("router"), Ref("prober")], strategies=("adaptive", "cost", "random")))
        if actor is None:
            self.give(Propose(file))

    def change(self, change: Change | Propose) -> Changed | ChangeRefused | Configured:
        """Give a change; what must be so of any answer is checked here."""
        before = self.in_force
        self.context.take_told()
        (answer,) = self.context.give(self.actor, change)
        told, now = self.context.take_told(), self.in_force
        assert self.actor.invariant() is None
        if now == before:
            assert told == []
            assert not isinstance(answer, Changed) or answer.generation == now.generation
        else:
            assert now.generation == before.generation + 1
            assert told == [("router", Configured(now)), ("prober", Configured(now))]
            assert answer == (Configured(now) if isinstance(change, Propose) else Changed(now.generation))
        assert isinstance(answer, Changed | ChangeRefused | Configured)
        return answer

    def does(self, change: Change) -> None:
        """It comes into force."""
        before = self.in_force.generation
        assert self.change(change) == Changed(before + 1)

    def refuses(self, change: Change | Propose) -> ChangeRefused:
        """It is refused, and nothing has changed."""
        before = self.in_force
        answer = self.change(change)
        assert isinstance(answer, ChangeRefused), answer
        assert self.in_force == before
        assert answer.reason
        return answer

    @property
    def ids(self) -> list[str]:
        return [spec.id for spec in self.in_force.providers]


def fault_and_path(refusal: ChangeRefused) -> tuple[ChangeFault, str]:
    return refusal.fault, refusal.path


# Providers.


def test_A1_a_registered_provider_stands_behind_those_of_the_file_and_is_told_to_all() -> None:
    desk = Desk()

    desk.does(RegisterProvider(D))

    assert desk.in_force.providers == (A, B, C, D)
    assert desk.in_force.default_provider == "a"


def test_A1_the_first_registered_is_the_default_provider() -> None:
    desk = Desk(ConfigSnapshot(0, (), "", ()))

    desk.does(RegisterProvider(B))
    desk.does(RegisterProvider(A))

    assert desk.in_force.default_provider == "b"


def test_A1_an_id_that_is_taken_is_a_conflict() -> None:
    desk = Desk()
    desk.does(RegisterProvider(D))

    assert fault_and_path(desk.refuses(RegisterProvider(replace(B, weight=3)))) == (ChangeFault.CONFLICT, "providers[1].id")
    assert fault_and_path(desk.refuses(RegisterProvider(D))) == (ChangeFault.CONFLICT, "providers[3].id")


def test_A1_an_unregistered_provider_is_gone_and_an_unknown_one_is_not_found() -> None:
    desk = Desk()

    desk.does(UnregisterProvider("b"))

    assert desk.ids == ["a", "c"]
    assert fault_and_path(desk.refuses(UnregisterProvider("b"))) == (ChangeFault.NOT_FOUND, "providers")
    assert fault_and_path(desk.refuses(UnregisterProvider("nobody"))) == (ChangeFault.NOT_FOUND, "providers")


def test_A1_a_provider_that_is_registered_again_comes_back_as_the_new_entry_says() -> None:
    desk = Desk()
    desk.does(PatchProvider("b", weight=9, enabled=False))
    desk.does(UnregisterProvider("b"))

    desk.does(RegisterProvider(replace(B, weight=5)))
    assert desk.in_force.providers == (A, C, replace(B, weight=5))

    desk.does(UnregisterProvider("b"))
    assert desk.ids == ["a", "c"]


def test_A1_without_the_default_provider_the_first_that_remains_is_the_default() -> None:
    desk = Desk()

    desk.does(UnregisterProvider("a"))
    assert desk.in_force.default_provider == "b"

    desk.does(RegisterProvider(A))
    assert desk.in_force.default_provider == "b"


def test_A1_the_default_can_be_set_and_goes_back_to_the_files_when_that_provider_is_unregistered() -> None:
    desk = Desk(replace(FILE, default_provider="b"))

    desk.does(SetDefault("c"))
    assert desk.in_force.default_provider == "c"

    desk.does(UnregisterProvider("c"))
    assert desk.in_force.default_provider == "b"


def test_A1_to_set_an_unknown_default_is_an_error() -> None:
    assert fault_and_path(Desk().refuses(SetDefault("nobody"))) == (ChangeFault.NOT_FOUND, "default_provider")


def test_A1_even_the_last_provider_can_be_unregistered_and_the_next_one_is_the_default() -> None:
    desk = Desk()
    for name in "abc":
        desk.does(UnregisterProvider(name))

    assert (desk.ids, desk.in_force.default_provider) == ([], "")

    desk.does(RegisterProvider(D))
    assert desk.in_force.default_provider == "d"


def test_A1_a_provider_that_a_rule_or_a_tenant_names_is_not_unregistered() -> None:
    desk = Desk(replace(FILE, rules=(ALWAYS_COST, TO_B)))
    refusal = desk.refuses(UnregisterProvider("b"))
    assert refusal.fault is ChangeFault.INVALID
    assert refusal.path.startswith("rules[1].then[0].provider")
    assert "b" in refusal.reason

    desk = Desk(replace(FILE, tenants=(ACME,)))
    refusal = desk.refuses(UnregisterProvider("b"))
    assert refusal.fault is ChangeFault.INVALID
    assert refusal.path.startswith("tenants.acme.allowed_providers")


def test_A1_the_last_provider_of_a_pool_is_not_unregistered_and_the_pool_is_named() -> None:
    desk = Desk(replace(FILE, pools=(PoolSpec("m", strategy="cost"),)))
    desk.does(UnregisterProvider("a"))
    desk.does(UnregisterProvider("c"))

    refusal = desk.refuses(UnregisterProvider("b"))
    assert fault_and_path(refusal) == (ChangeFault.INVALID, "pools.m")
    assert refusal.reason == "no provider serves a model of this name"

    desk.does(RegisterProvider(D))
    desk.does(UnregisterProvider("b"))
    assert desk.ids == ["d"]


def test_A1_so_it_is_of_a_pool_that_was_given_a_strategy_until_that_is_taken_back() -> None:
    desk = Desk(replace(FILE, providers=(A,)))
    desk.does(SetStrategy("cost", model="m"))
    assert desk.refuses(UnregisterProvider("a")).path == "pools.m"

    desk.does(SetStrategy("", model="m"))
    desk.does(UnregisterProvider("a"))


def test_A1_the_last_provider_that_a_redirect_or_a_failover_chain_leads_to_is_not_unregistered() -> None:
    other = replace(D, models=(ModelSpec("other", "other"),))
    away = Rule("away", when=Condition(ConditionKind.MODEL, names=("m",)), then=(Action(ActionKind.REDIRECT, ("other",)),))
    desk = Desk(replace(FILE, providers=(A, other), rules=(away,)))
    assert fault_and_path(desk.refuses(UnregisterProvider("d"))) == (ChangeFault.INVALID, "rules[0].then[0].redirect")

    pools = (PoolSpec("m", chain=(ChainStep(("b",)), ChainStep())),)
    desk = Desk(replace(FILE, pools=pools))
    assert fault_and_path(desk.refuses(UnregisterProvider("b"))) == (ChangeFault.INVALID, "pools.m.failover.chain[0]")


def test_A7_an_alias_may_lead_to_nobody_at_run_time_as_in_a_file() -> None:
    desk = Desk(replace(FILE, providers=(A,)))

    desk.does(UnregisterProvider("a"))
    assert ("gpt4", "m") in desk.in_force.aliases


def test_A2_a_pool_of_what_a_provider_lists_itself_holds_as_long_as_that_provider_does() -> None:
    desk = Desk(replace(FILE, providers=(A, LISTS)))
    desk.give(ModelsLearned("lister", (SMALL,)))
    desk.does(SetStrategy("cost", model=SMALL.name))
    desk.does(UnregisterProvider("a"))

    assert desk.refuses(UnregisterProvider("lister")).path == f"pools.{SMALL.name}"


def test_A1_a_provider_with_impossible_numbers_or_no_name_is_refused() -> None:
    desk = Desk()
    invalid = ChangeFault.INVALID

    assert fault_and_path(desk.refuses(RegisterProvider(replace(D, weight=1001)))) == (invalid, "providers[3].weight")
    assert fault_and_path(desk.refuses(RegisterProvider(replace(D, priority=10**7)))) == (invalid, "providers[3].priority")
    assert fault_and_path(desk.refuses(RegisterProvider(replace(D, id="")))) == (invalid, "providers[3].id")


def test_C2_a_registered_provider_that_names_no_models_learns_its_own() -> None:
    desk = Desk()
    desk.does(RegisterProvider(LISTS))
    desk.give(ModelsLearned("lister", (SMALL,)))
    assert desk.spec("lister") == replace(LISTS, models=(SMALL,), takes_any=False)

    desk.does(PatchProvider("lister", weight=3))
    assert desk.spec("lister").models == (SMALL,)

    desk.does(UnregisterProvider("lister"))
    desk.does(RegisterProvider(LISTS))
    assert desk.spec("lister") == LISTS


# Weight, priority, status.


def test_D2_weight_and_priority_change_at_run_time_within_their_bounds() -> None:
    desk = Desk()

    desk.does(PatchProvider("b", weight=7))
    desk.does(PatchProvider("b", priority=-2))
    assert desk.spec("b") == replace(B, weight=7, priority=-2)

    invalid = ChangeFault.INVALID
    for weight in (-1, 1001):
        assert fault_and_path(desk.refuses(PatchProvider("b", weight=weight))) == (invalid, "providers[1].weight")
    assert fault_and_path(desk.refuses(PatchProvider("b", priority=1_000_001))) == (invalid, "providers[1].priority")
    assert fault_and_path(desk.refuses(PatchProvider("nobody", weight=1))) == (ChangeFault.NOT_FOUND, "providers")


def test_A3_a_status_is_said_with_its_reason_until_another_one_is_said() -> None:
    desk = Desk()

    desk.does(PatchProvider("b", status="unavailable", status_reason="moving house"))
    assert desk.spec("b") == replace(B, status="unavailable", status_reason="moving house")
    desk.does(PatchProvider("b", weight=2))
    assert desk.spec("b").status_reason == "moving house"
    desk.does(PatchProvider("b", status="auth_failed"))
    assert desk.spec("b") == replace(B, status="auth_failed", weight=2)
    desk.does(PatchProvider("b", status="disabled", status_reason="sold"))
    assert desk.spec("b") == replace(B, enabled=False, status_reason="sold", weight=2)
    desk.does(PatchProvider("b", status="ready"))
    assert desk.spec("b") == replace(B, weight=2)


@pytest.mark.parametrize("status", ["ready", "unchecked"])
def test_A3_ready_and_unchecked_let_even_a_provider_take_calls_that_the_file_switched_off(status: str) -> None:
    desk = Desk(replace(FILE, providers=(A, replace(B, enabled=False), C)))

    desk.does(PatchProvider("b", status=status))

    assert desk.spec("b") == B


def test_A3_to_switch_a_provider_off_and_on_leaves_what_was_said_of_its_status() -> None:
    desk = Desk()
    desk.does(PatchProvider("b", status="unavailable", status_reason="moving"))
    desk.does(PatchProvider("b", enabled=False))
    assert not desk.spec("b").enabled

    desk.does(PatchProvider("b", enabled=True))
    assert desk.spec("b") == replace(B, status="unavailable", status_reason="moving")

    desk.does(PatchProvider("b", status="disabled", status_reason="sold"))
    desk.does(PatchProvider("b", enabled=True))
    assert desk.spec("b") == B


def test_A3_what_no_status_can_be_is_refused() -> None:
    desk = Desk()
    invalid = ChangeFault.INVALID
    for status in ("draining", "out", "", "bogus"):
        assert fault_and_path(desk.refuses(PatchProvider("b", status=status))) == (invalid, "providers[1].status")
    for enabled, status in ((True, "disabled"), (False, "ready"), (False, "unavailable")):
        refusal = desk.refuses(PatchProvider("b", enabled=enabled, status=status))
        assert fault_and_path(refusal) == (invalid, "providers[1].enabled")
    for reasoned in (PatchProvider("b", status_reason="why"), PatchProvider("b", status="ready", status_reason="why")):
        assert fault_and_path(desk.refuses(reasoned)) == (invalid, "providers[1].status_reason")
    long = PatchProvider("b", status="unavailable", status_reason="x" * 501)
    assert fault_and_path(desk.refuses(long)) == (invalid, "providers[1].status_reason")


# Strategies.


def test_D2_a_strategy_is_set_for_all_for_a_pool_and_for_a_tenant() -> None:
    desk = Desk(replace(FILE, tenants=(ACME,), pools=(PoolSpec("m", "random"),)))

    desk.does(SetStrategy("random"))
    desk.does(SetStrategy("cost", model="m"))
    desk.does(SetStrategy("adaptive", tenant="acme"))
    desk.does(SetStrategy("random", tenant="newcomer"))

    assert desk.in_force.routing == replace(FILE.routing, strategy="random")
    assert desk.in_force.pools == (PoolSpec("m", "cost"),)
    assert desk.in_force.tenants == (replace(ACME, strategy="adaptive"), TenantSpec("newcomer", strategy="random"))


def test_D2_an_empty_strategy_goes_back_to_what_is_more_general() -> None:
    desk = Desk(replace(FILE, tenants=(ACME,)))
    desk.does(SetStrategy("random"))
    desk.does(SetStrategy("cost", model="m"))
    assert desk.in_force.pools == (PoolSpec("m", "cost"),)

    desk.does(SetStrategy(""))
    desk.does(SetStrategy("", model="m"))
    desk.does(SetStrategy("", tenant="acme"))

    assert desk.in_force.routing == FILE.routing
    assert list(desk.in_force.pools) == []
    assert desk.in_force.tenants == (replace(ACME, strategy=""),)


def test_D2_an_unknown_strategy_is_refused_where_it_stands() -> None:
    desk = Desk(replace(FILE, tenants=(ACME,)))

    assert fault_and_path(desk.refuses(SetStrategy("luck"))) == (ChangeFault.INVALID, "routing.strategy")
    assert desk.refuses(SetStrategy("luck", tenant="acme")).path == "tenants.acme.strategy"
    assert desk.refuses(SetStrategy("luck", model="m")).path == "pools.m.strategy"
    assert desk.refuses(SetStrategy("cost", model="m", tenant="acme")).fault is ChangeFault.INVALID
    assert desk.refuses(SetStrategy("cost", tenant="x" * 201)).fault is ChangeFault.INVALID


def test_D2_a_model_that_nobody_serves_has_no_pool_to_set_the_strategy_of() -> None:
    desk = Desk()
    assert fault_and_path(desk.refuses(SetStrategy("cost", model="nonsense"))) == (ChangeFault.NOT_FOUND, "pools")

    desk.does(RegisterProvider(LISTS))
    desk.does(SetStrategy("cost", model="nonsense"))


def test_a_registry_that_was_told_no_strategies_takes_any_name() -> None:
    desk = Desk(actor=RegistryActor([Ref("router"), Ref("prober")]))
    desk.give(Propose(FILE))

    desk.does(SetStrategy("somebody_elses"))


# Aliases.


def test_A7_an_alias_is_put_replaced_and_deleted() -> None:
    desk = Desk()

    desk.does(PutAlias("best", "m"))
    desk.does(PutAlias("gpt4", "a:m"))
    assert desk.in_force.aliases == (("best", "m"), ("gpt4", "a:m"), ("small", "m"))

    desk.does(DeleteAlias("best"))
    desk.does(DeleteAlias("small"))
    assert list(desk.in_force.aliases) == [("gpt4", "a:m")]


def test_A7_a_deleted_alias_of_the_file_stays_hidden_and_can_be_put_again() -> None:
    desk = Desk()
    desk.does(DeleteAlias("gpt4"))
    desk.change(Propose(FILE))
    assert dict(desk.in_force.aliases) == {"small": "m"}

    desk.does(PutAlias("gpt4", "b:m"))
    assert dict(desk.in_force.aliases) == {"gpt4": "b:m", "small": "m"}


def test_A7_an_unknown_alias_is_not_found() -> None:
    desk = Desk()
    desk.does(DeleteAlias("gpt4"))

    assert fault_and_path(desk.refuses(DeleteAlias("gpt4"))) == (ChangeFault.NOT_FOUND, "aliases")
    assert fault_and_path(desk.refuses(DeleteAlias("nothing"))) == (ChangeFault.NOT_FOUND, "aliases")


def test_A7_aliases_that_lead_back_to_themselves_are_refused() -> None:
    desk = Desk()
    desk.does(PutAlias("one", "two"))
    desk.does(PutAlias("two", "m"))

    refusal = desk.refuses(PutAlias("two", "one"))

    assert refusal.fault is ChangeFault.INVALID
    assert refusal.path in ("aliases.one", "aliases.two")
    assert desk.refuses(PutAlias("self", "self")).path == "aliases.self"
    assert fault_and_path(desk.refuses(PutAlias("", "m"))) == (ChangeFault.INVALID, "aliases")
    assert desk.refuses(PutAlias("x" * 201, "m")).fault is ChangeFault.INVALID


# Rules.


def test_D7_a_rule_is_put_replaced_where_it_stands_and_deleted() -> None:
    desk = Desk(replace(FILE, rules=(TO_B, ALWAYS_COST)))
    fresh = replace(ALWAYS_COST, name="fresh", priority=3)

    desk.does(PutRule(fresh))
    desk.does(PutRule(replace(TO_B, priority=9)))
    assert desk.in_force.rules == (replace(TO_B, priority=9), ALWAYS_COST, fresh)

    desk.does(DeleteRule("to-b"))
    desk.does(DeleteRule("fresh"))
    assert list(desk.in_force.rules) == [ALWAYS_COST]
    assert fault_and_path(desk.refuses(DeleteRule("to-b"))) == (ChangeFault.NOT_FOUND, "rules")


def test_D7_a_rule_is_switched_off_and_on_and_a_new_one_is_as_it_says() -> None:
    desk = Desk(replace(FILE, rules=(TO_B,)))

    desk.does(EnableRule("to-b", False))
    assert desk.in_force.rules == (replace(TO_B, enabled=False),)
    desk.does(PutRule(replace(TO_B, priority=1)))
    assert desk.in_force.rules == (replace(TO_B, priority=1),)
    desk.does(EnableRule("to-b", False))
    desk.does(EnableRule("to-b", True))
    assert desk.in_force.rules == (replace(TO_B, priority=1),)
    assert fault_and_path(desk.refuses(EnableRule("nothing", True))) == (ChangeFault.NOT_FOUND, "rules")


def test_D7_a_rule_that_names_nobody_is_refused_at_its_place() -> None:
    desk = Desk(replace(FILE, rules=(ALWAYS_COST,)))
    to_nobody = Rule("to-nobody", then=(Action(ActionKind.PROVIDERS, ("nobody",)),))

    refusal = desk.refuses(PutRule(to_nobody))

    assert refusal.fault is ChangeFault.INVALID
    assert refusal.path.startswith("rules[1].then[0].provider")
    assert desk.refuses(PutRule(Rule(""))).path == "rules[1].name"


def test_D7_all_that_is_wrong_with_a_rule_is_told_each_with_its_path() -> None:
    actions = (Action(ActionKind.PROVIDERS, ("nobody", "b", "none")), Action(ActionKind.STRATEGY, ("luck",)))

    refusal = Desk().refuses(PutRule(Rule("r", then=actions)))

    assert refusal.path == "rules[0].then[0].providers"
    assert refusal.reason.split("; ") == [
        "there is no provider 'nobody'",
        "rules[0].then[0].providers: there is no provider 'none'",
        "rules[0].then[1].strategy: there is no strategy 'luck'",
    ]
    many = tuple(f"no-{number}" for number in range(30))
    assert Desk().refuses(PutRule(Rule("r", then=(Action(ActionKind.PROVIDERS, many),)))).reason.endswith("; and 10 more")


# Nothing new.


@pytest.mark.parametrize(
    "change",
    [
        PatchProvider("b", weight=1, enabled=True),
        PatchProvider("b", status="ready"),
        SetDefault("a"),
        SetStrategy("adaptive"),
        SetStrategy("", model="m"),
        PutAlias("gpt4", "m"),
        PutRule(TO_B),
        EnableRule("to-b", True),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_change_that_says_what_is_so_is_accepted_and_the_generation_stays(change: Change) -> None:
    desk = Desk(replace(FILE, rules=(TO_B,)))

    assert desk.change(change) == Changed(1)


def test_what_was_said_stays_said_even_if_the_file_said_the_same_then() -> None:
    desk = Desk()
    assert desk.change(PatchProvider("b", weight=1)) == Changed(1)

    desk.change(Propose(replace(FILE, providers=(A, replace(B, weight=4), C))))

    assert desk.spec("b").weight == 1


@pytest.mark.parametrize(("count", "more"), [(20, ""), (25, "; and 5 more")])
def test_of_many_faults_twenty_are_told_one_by_one(count: int, more: str) -> None:
    tenants = tuple(TenantSpec(f"t{number}", strategy="nope") for number in range(count))
    refused = change_refusal(ConfigSnapshot(1, (), "", (), tenants=tenants), ("adaptive",))
    assert refused is not None
    assert refused.path == "tenants.t0.strategy"
    assert refused.reason.count("there is no strategy 'nope'") == TOLD_MAX
    assert refused.reason.endswith(f"tenants.t19.strategy: there is no strategy 'nope'{more}")


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, " (and 2 more)")])
def test_a_file_that_does_not_go_with_the_overlay_is_told_how_many_faults_there_are(count: int, more: str) -> None:
    rules = tuple(Rule(f"r{number}", then=(Action(ActionKind.PROVIDERS, ("gone",)),)) for number in range(count))
    gone, left = (ProviderSpec(name, "openai", "http://x", "c") for name in ("gone", "left"))
    file = ConfigSnapshot(1, (gone, left), "left", (), rules=rules)
    refused = file_refusal(file, Overlay(removed=("gone",)), ("adaptive",))
    assert refused is not None
    blamed = "provider 'gone' unregistered through the admin API"
    assert refused.reason == f"there is no provider 'gone'{more}; does not go with {blamed}"
    assert refused.path == "rules[0].then[0].providers"
