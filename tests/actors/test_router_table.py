"""How a model's name is resolved: exact, alias, pin, the default that takes any."""

import timeit

import pytest

from actors.router.table import Route, RoutingTable
from tests.actors.router_kit import names, provider, snapshot

OPEN = provider("open", "gpt-4o", "gpt-4o-mini")
AZURE = provider("azure-eu", "gpt-4o", kind="azure")
LOCAL = provider("local", kind="ollama", takes_any=True)


def find(name: str, *specs: object, **config: object) -> Route | None:
    table = RoutingTable.build(snapshot(*(specs or (OPEN, AZURE, LOCAL)), **config))  # type: ignore[arg-type] # specs and routing fields
    return table.find(name)


def found(name: str, *specs: object, **config: object) -> tuple[str, list[str]]:
    route = find(name, *specs, **config)
    assert route is not None
    return route.model, names(route.entries)


def test_A7_an_exact_name_leads_to_all_who_list_it_in_the_order_of_definition() -> None:
    assert found("gpt-4o") == ("gpt-4o", ["open", "azure-eu"])
    assert found("gpt-4o", AZURE, OPEN) == ("gpt-4o", ["azure-eu", "open"])


def test_A7_an_exact_name_beats_an_alias_of_that_name() -> None:
    assert found("gpt-4o", aliases={"gpt-4o": "gpt-4o-mini"}) == ("gpt-4o", ["open", "azure-eu"])


def test_A7_an_alias_may_lead_to_an_alias_and_to_a_pin() -> None:
    aliases = {"best": "gpt4", "gpt4": "openai:gpt-4o"}
    assert found("best", aliases=aliases) == ("gpt-4o", ["open"])


def test_a_circle_of_aliases_leads_nowhere_and_ends() -> None:
    assert find("a", aliases={"a": "b", "b": "a"}) is None


@pytest.mark.parametrize("name", ["azure-eu:gpt-4o", "azure-eu/gpt-4o", "azure/gpt-4o", "azure:gpt-4o"])
def test_A7_a_name_with_a_provider_or_kind_in_front_pins_it(name: str) -> None:
    assert found(name) == ("gpt-4o", ["azure-eu"])


def test_a_pin_names_those_it_leaves_out() -> None:
    route = find("azure:gpt-4o")
    assert route is not None
    assert route.pinned_out == ("open",)


def test_an_id_is_looked_for_before_a_kind() -> None:
    impostor = provider("azure", "gpt-4o", kind="openai")
    assert found("azure:gpt-4o", AZURE, impostor) == ("gpt-4o", ["azure"])


def test_only_the_first_separator_splits() -> None:
    assert found("local/meta-llama/Llama-3:8b") == ("meta-llama/Llama-3:8b", ["local"])


def test_a_listed_name_with_a_slash_is_no_pin() -> None:
    assert found("openai/gpt-4o", provider("hub", "openai/gpt-4o", kind="groq"), OPEN) == ("openai/gpt-4o", ["hub"])


def test_A7_a_pinned_provider_without_the_model_is_no_route_even_if_others_have_it() -> None:
    assert find("azure-eu:gpt-4o-mini") is None
    assert find("azure-eu:") is None


def test_a_name_nobody_lists_goes_to_the_default_provider_only_if_that_takes_any_name() -> None:
    assert find("mystery") is None
    assert found("mystery", default="local") == ("mystery", ["local"])
    assert found("llama3:8b", default="local") == ("llama3:8b", ["local"])


def test_A1_the_first_provider_is_the_default_where_none_is_named_or_the_one_that_is_has_gone() -> None:
    for default in ("", "gone"):
        assert found("mystery", provider("x", takes_any=True), provider("y", takes_any=True), default=default) == (
            "mystery",
            ["x"],
        )


def test_A7_who_takes_any_name_is_no_candidate_for_a_listed_one() -> None:
    assert found("gpt-4o-mini", default="local") == ("gpt-4o-mini", ["open"])


def test_a_disabled_provider_stays_a_candidate_so_that_it_can_say_so() -> None:
    assert found("m", provider("off", "m", enabled=False)) == ("m", ["off"])


def test_D2_a_lookup_costs_the_same_with_ten_thousand_models() -> None:
    few = RoutingTable.build(snapshot(provider("a", *(f"m{n}" for n in range(10)))))
    many = RoutingTable.build(snapshot(*(provider(f"p{n}", *(f"m{n}-{k}" for k in range(100))) for n in range(100))))

    def cost(table: RoutingTable, name: str) -> float:
        return min(timeit.repeat(lambda: table.find(name), number=2000, repeat=7))

    assert cost(many, "m50-50") < 5 * cost(few, "m5")
    assert cost(many, "nobody") < 5 * cost(few, "nobody")
