"""Paid probes: the prober orders them where they are allowed, books what they cost, and tells it."""

from dataclasses import replace

import pytest

from actors.probe_bill import INPUT_TOKENS, OUTPUT_TOKENS, cost_usd
from messages.calls import Usage
from messages.control import ModelSpec, ProbeSpec, ProviderSpec
from messages.health import Probed, ProbeNow, ProbeOverdue, ProbeWish, RunProbe
from messages.routing import Gathered
from tests.actors.test_prober import Prober, spec

MODEL = ModelSpec("m", "m-2024", 1.0, 2.0)
ESTIMATE = cost_usd(MODEL, INPUT_TOKENS, OUTPUT_TOKENS)


def paying(cap: float) -> ProviderSpec:
    return replace(spec("a"), models=(MODEL,), lists_models=False, probe=ProbeSpec("chat", 30.0, None, cap))


def probed(prober: Prober) -> list[Probed]:
    return [message for _, message in prober.context.take_told() if isinstance(message, Probed)]


def wished(prober: Prober) -> RunProbe:
    """The probe that begins when the provider wishes one."""
    prober.context.take_told()
    prober.give(Gathered(prober.context.fans[-1].key, (ProbeWish("a", True, "silent"),)))
    (order,) = prober.begun()
    return order


def next_wished(prober: Prober) -> RunProbe:
    """The one that begins a tick later."""
    prober.tick()
    return wished(prober)


def payer(cap: float) -> Prober:
    prober = Prober()
    prober.configure(paying(cap))
    return prober


def test_pain_20_a_free_probe_orders_no_model() -> None:
    assert wished(Prober("a")).model == ""


def test_pain_20_a_paid_probe_orders_the_model_as_the_provider_calls_it_and_tells_what_it_cost() -> None:
    prober = payer(1.0)
    order = wished(prober)
    assert order.model == "m-2024"

    prober.done(order, is_paid=True, usage=Usage(10, 4))

    assert [told.cost_usd for told in probed(prober)] == [pytest.approx(18e-6)]


def test_pain_20_when_the_cap_is_reached_the_free_endpoint_alone_is_asked() -> None:
    prober = payer(1.5 * ESTIMATE)
    first = wished(prober)
    prober.done(first, is_paid=True)
    assert [told.cost_usd for told in probed(prober)] == [ESTIMATE]

    assert next_wished(prober).model == ""


def test_pain_20_a_probe_that_called_no_model_costs_nothing() -> None:
    prober = payer(1.5 * ESTIMATE)
    for _ in range(5):
        order = wished(prober)
        assert order.model
        prober.done(order, ok=False)
        assert [told.cost_usd for told in probed(prober)] == [0.0]
        prober.tick()


def test_pain_20_a_probe_that_does_not_come_back_costs_its_estimate() -> None:
    prober = payer(1.5 * ESTIMATE)
    order = wished(prober)

    prober.give(ProbeOverdue(order.probe_id))

    assert [(told.ok, told.cost_usd) for told in probed(prober)] == [(False, ESTIMATE)]
    assert next_wished(prober).model == ""


def test_pain_20_a_successor_of_the_prober_knows_what_was_spent() -> None:
    prober = payer(1.5 * ESTIMATE)
    assert wished(prober).model

    heir = Prober(before=prober.actor)
    heir.configure(paying(1.5 * ESTIMATE))

    assert wished(heir).model == ""


def test_pain_20_neither_a_new_file_nor_a_removal_in_between_clears_the_bill() -> None:
    prober = payer(1.5 * ESTIMATE)
    prober.done(wished(prober), is_paid=True)

    prober.configure()
    prober.configure(replace(paying(1.5 * ESTIMATE), credential="another", endpoint="http://b"))

    assert next_wished(prober).model == ""


def test_who_asks_for_a_probe_is_told_its_cost() -> None:
    prober = payer(1.0)
    prober.give(ProbeNow("a"))
    order = prober.begun()[0]
    assert order.model == "m-2024"

    prober.done(order, is_paid=True, usage=Usage(10, 4))

    (answer,) = prober.context.slots[0].answers
    assert answer.cost_usd == pytest.approx(18e-6)
