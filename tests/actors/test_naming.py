"""What a name leads to is told from a configuration as the router finds it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.naming import Naming, Server
from actors.router.table import RoutingTable
from tests.actors.router_kit import provider, snapshot

NAMES = ("m", "n", "a", "a:m", "b/n", "openai:m", "mistral/n", "a:", "b:a:m", "x:m", "", "old", "older")
SERVERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(("openai", "mistral")), st.sets(st.sampled_from(NAMES)), st.booleans()),
    unique_by=lambda server: server[0],
    max_size=3,
)
ALIASES = st.dictionaries(st.sampled_from(("old", "older", "m", "a:m")), st.sampled_from(NAMES), max_size=3)


def table(servers: list[Any], default: str, aliases: dict[str, str]) -> RoutingTable:
    specs = [provider(name, *sorted(models), kind=kind, takes_any=takes_any) for name, kind, models, takes_any in servers]
    return RoutingTable.build(snapshot(*specs, aliases=aliases, default=default))


@given(SERVERS, st.sampled_from("abc"), ALIASES)
def test_A7_a_name_leads_where_the_routing_table_says(servers: list[Any], default: str, aliases: dict[str, str]) -> None:
    naming = Naming([Server(name, kind, frozenset(models), any_) for name, kind, models, any_ in servers], default, aliases)
    routes = table(servers, default, aliases)

    for name in NAMES:
        route = routes.find(name)
        assert naming.find(name) == (None if route is None else (route.model, tuple(entry.id for entry in route.entries)))


@given(SERVERS, st.sampled_from("abc"), ALIASES)
def test_A7_names_have_one_place_exactly_if_they_lead_to_the_same_providers_for_the_same_model(
    servers: list[Any], default: str, aliases: dict[str, str]
) -> None:
    naming = Naming([Server(name, kind, frozenset(models), any_) for name, kind, models, any_ in servers], default, aliases)

    led = [name for name in NAMES if naming.find(name) is not None]
    for one in led:
        assert naming.find(naming.place(one)) == naming.find(one)
        for other in led:
            assert (naming.place(one) == naming.place(other)) == (naming.find(one) == naming.find(other))
