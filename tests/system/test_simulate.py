"""Playing a scenario: the user's own configuration, simulated traffic and troubles, a report that can be believed."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.config.loading import load_bytes, load_file
from runtime.config.problems import ConfigError
from runtime.config.settings import Loaded
from runtime.simulation.arrivals import arrivals
from runtime.simulation.openai_request import Generation, parse
from runtime.simulation.play import play
from runtime.simulation.scenario import faults_of, load_scenario
from runtime.simulation.scenario_schema import ProviderEntry, Scenario
from runtime.simulation.tally import quantiles_ms

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulation"


def entry(name: str, **more: Any) -> dict[str, Any]:
    """A provider of the configuration, whose models have no prices."""
    return {"id": name, "kind": "openai_compatible", "base_url": "http://same.test/v1", "models": ["m"]} | more


def configured(providers: list[dict[str, Any]], **more: Any) -> Loaded:
    return load_bytes(json.dumps({"providers": providers, **more}).encode(), Path("pointsman.yaml"), {})


def loaded(*names: str, **more: Any) -> Loaded:
    """Providers at one address, with prices and keys."""
    models = [{"name": "m", "input_price": 1.0, "output_price": 2.0}]
    return configured([entry(name, models=models, api_key=f"sk-{name}") for name in names], **more)


def scenario(**said: Any) -> Scenario:
    return Scenario.model_validate({"duration": "2m", "load": {"rate": 2}} | said)


def of(report: dict[str, Any], provider: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["providers"] if one["provider"] == provider)
    return found


def test_every_request_is_counted_once_and_the_costs_are_those_of_the_configuration() -> None:
    report = play(loaded("a", "b"), scenario(load={"rate": 2, "prompt_tokens": 100, "output_tokens": 50}))

    assert report["requests"] == report["answered"] == report["calls"]
    assert 180 < report["requests"] < 300
    assert sum(one["answers"] for one in report["providers"]) == report["answered"]
    for one in report["providers"]:
        assert one["share"] == pytest.approx(one["answers"] / report["answered"], abs=1e-4)
    assert report["cost_usd"] == pytest.approx(report["requests"] * (100 * 1.0 + 50 * 2.0) / 1e6, rel=0.02)
    assert report["errors"] == report["fatal"] == []


def test_two_providers_with_one_address_are_two_that_behave_differently() -> None:
    slow = {"ttfb": "2s", "sigma": 0, "capacity": 100}
    report = play(loaded("a", "b", routing={"strategy": "round_robin"}), scenario(providers={"b": slow}))

    assert of(report, "b")["first_content_ms"]["p50"] == 2000.0
    assert of(report, "a")["first_content_ms"]["p99"] < 1000.0


def test_a_provider_may_take_its_time_to_read_prompts() -> None:
    reading = {"ttfb": "1s", "sigma": 0, "prefill_tokens_per_second": 1000}
    report = play(loaded("a"), scenario(load={"rate": 1, "prompt_tokens": 2000}, providers={"a": reading}))

    assert of(report, "a")["first_content_ms"]["p50"] == pytest.approx(3000.0, rel=0.01)


def test_who_is_not_mentioned_behaves_by_defaults() -> None:
    said = scenario(load={"rate": 1})
    named = {name: ProviderEntry().model_dump(by_alias=True) for name in ("a", "b")}

    assert play(loaded("a", "b"), said) == play(loaded("a", "b"), scenario(load={"rate": 1}, providers=named))


def test_prices_that_are_not_known_are_not_invented() -> None:
    report = play(configured([entry("a")]), scenario())

    assert of(report, "a")["cost_usd"] is None
    assert not report["is_cost_known"]


def test_an_outage_of_the_only_provider_is_what_the_clients_see_and_only_while_it_lasts() -> None:
    outage = {"faults": [{"fault": "outage", "at": "1m", "for": "20s"}]}
    config = loaded("a", routing={"queue": {"max_wait": "100ms"}, "failover": {"max_attempts": 1}})
    report = play(config, scenario(duration="4m", providers={"a": outage}))

    assert report["errors"] != []
    assert 10 < sum(error["count"] for error in report["errors"]) < 150
    assert of(report, "a")["failures"] != {}


def test_a_burst_makes_the_others_wait_and_tells_for_how_long() -> None:
    config = configured([entry("a", limits={"max_concurrency": 2})])
    load = {"rate": 0.2, "output_tokens": 50}
    calm = play(config, scenario(load=load))
    busy = play(config, scenario(load=load | {"bursts": [{"at": "30s", "for": "2s", "rate": 10, "tenant": "loud"}]}))

    assert calm["queue"]["waited"] < 3
    assert busy["queue"]["waited"] > 5
    assert busy["queue"]["wait_ms"]["p95"] > 500
    assert [one["tenant"] for one in busy["tenants"]] == ["loud"]


def test_providers_that_name_no_models_have_those_that_are_asked_for() -> None:
    report = play(configured([entry("a", models=None)]), scenario(load={"rate": 1, "models": {"a:x": 1, "y": 1}}))

    assert report["answered"] == report["requests"] > 60


def test_an_unknown_model_is_told_as_the_clients_are_told() -> None:
    report = play(loaded("a"), scenario(load={"rate": 1, "models": {"nobody-has-it": 1}}))

    assert [(error["status"], error["code"]) for error in report["errors"]] == [(404, "model_not_found")]


def test_the_load_is_what_was_ordered() -> None:
    load = {
        "rate": 20,
        "stream_share": 0.25,
        "models": {"x": 3, "y": 1},
        "tenants": {"t": 1, "u": 1},
        "prompt_tokens": {"median": 200, "sigma": 0.5, "max": 1000},
        "output_tokens": {"median": 80, "sigma": 0.5},
        "max_tokens": 500,
        "bursts": [{"at": "50s", "for": "10s", "rate": 100, "tenant": "loud"}],
    }
    said = scenario(duration="100s", load=load)
    came = list(arrivals(said, said.load.models))
    asked = [parse("/chat/completions", arrival.request.body) for arrival in came]
    texts = [one for one in asked if isinstance(one, Generation)]
    prompts, outputs = sorted(one.prompt_tokens for one in texts), sorted(one.wanted_tokens or 0 for one in texts)

    assert [arrival.at for arrival in came] == sorted(arrival.at for arrival in came)
    assert len(texts) == len(came) == pytest.approx(3000, rel=0.1)
    assert sum(one.tenant == "loud" for one in came) == pytest.approx(1000, rel=0.15)
    assert all(50 <= one.at < 60 for one in came if one.tenant == "loud")
    assert sum(one.is_stream for one in came) / len(came) == pytest.approx(0.25, abs=0.05)
    assert sum(one.model == "x" for one in texts) / len(came) == pytest.approx(0.75, abs=0.05)
    assert prompts[len(prompts) // 2] == pytest.approx(200, rel=0.1)
    assert prompts[-1] <= 1001
    assert outputs[len(outputs) // 2] == pytest.approx(80, rel=0.1)
    assert {one.max_tokens for one in texts} == {500}


def test_flapping_is_a_chain_of_outages_and_ends_with_its_time() -> None:
    flapping = {"fault": "flapping", "at": 10, "for": 50, "down": 10, "up": 20}
    behaviour = ProviderEntry.model_validate({"faults": [flapping]})

    assert [(at, str(fault.kind), fault.for_s) for at, fault in faults_of(behaviour, 100.0)] == [
        (10.0, "outage", 10.0),
        (40.0, "outage", 10.0),
    ]


def test_percentiles_are_values_that_were_there() -> None:
    assert quantiles_ms([0.001 * number for number in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert quantiles_ms([0.5]) == {"p50": 500.0, "p95": 500.0, "p99": 500.0}
    assert quantiles_ms([]) is None


WRONG = """\
duration: 1h
load:
  rate: -1
  burst: []
  models: {m: 0}
providers:
  a:
    ttfb: soon
    faults:
      - {fault: outage, share: 0.5}
      - {fault: earthquake}
"""


MISFIT = """\
duration: 1m
providers:
  b: {}
  a:
    faults: [{fault: cut, at: 2m}]
load: {bursts: [{at: 2m, for: 1s, rate: 1}]}
"""


def problems_of(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(file, loaded("a").snapshot, {})
    return [str(problem) for problem in caught.value.problems]


def test_every_error_of_a_scenario_is_told_at_once_with_path_and_line(tmp_path: Path) -> None:
    assert problems_of(WRONG, tmp_path) == [
        "line 3: load.rate: must be more than 0",
        "line 4: load.burst: unknown key; did you mean 'bursts'?",
        "line 5: load.models: one at least must have a share above 0",
        "line 8: providers.a.ttfb: expected a duration such as 250ms, 30s, 5m or 2h",
        "line 10: providers.a.faults[0]: outage does not take 'share'; it takes at, for",
        "line 11: providers.a.faults[1].fault: expected 'outage', 'slow', 'brownout', 'rate_limited', 'bad_key', 'cut', "
        "'hang', 'garbage' or 'flapping'",
    ]


def test_a_scenario_must_fit_the_configuration_and_its_own_duration(tmp_path: Path) -> None:
    assert problems_of(MISFIT, tmp_path) == [
        "line 3: providers.b: the configuration has no such provider; it has a",
        "line 5: providers.a.faults[0].at: is not within the duration",
        "line 6: load.bursts[0].at: is not within the duration",
    ]


def test_a_scenario_of_a_million_hours_is_refused(tmp_path: Path) -> None:
    assert problems_of("load: {rate: 10000}\n", tmp_path) == [
        "line 1: this comes to more than 2000000 requests; make the duration or the rate smaller"
    ]


def test_what_is_no_scenario_at_all_is_told(tmp_path: Path) -> None:
    assert problems_of("- 1\n", tmp_path) == ["line 1: expected a mapping"]
    assert "not YAML" in problems_of("a: [", tmp_path)[0]


def example(name: str) -> dict[str, Any]:
    config = load_file(EXAMPLES / "pointsman.yaml", {})
    return play(config, load_scenario(EXAMPLES / f"{name}.yaml", config.snapshot, {}))


def test_the_example_of_an_hour_of_troubles() -> None:
    report = example("outage")

    assert report["requests"] > 3000
    assert report["success"] >= 0.995
    # What cannot be made good is a stream that broke after content.
    assert {error["code"] for error in report["errors"]} <= {"stream_broken"}
    assert of(report, "main")["failures"].keys() >= {"broken"}


def test_the_example_of_a_noisy_tenant() -> None:
    report = example("noisy-tenant")
    success = {one["tenant"]: one["success"] for one in report["tenants"]}

    assert report["queue"]["waited"] > 100
    assert success["shop"] > success["batch"]


def test_the_example_of_price_and_speed_shows_what_a_second_costs() -> None:
    config = load_file(EXAMPLES / "pointsman.yaml", {})
    said = load_scenario(EXAMPLES / "price-vs-speed.yaml", config.snapshot, {})
    text = (EXAMPLES / "pointsman.yaml").read_text().replace("strategy: adaptive", "strategy: cost")
    cheap = play(load_bytes(text.encode(), EXAMPLES / "pointsman.yaml", {}), said)
    quick = play(config, said)

    assert cheap["success"] == quick["success"] == 1.0
    assert cheap["cost_usd"] < quick["cost_usd"] / 2
    assert cheap["whole_ms"]["p50"] > 2 * quick["whole_ms"]["p50"]
