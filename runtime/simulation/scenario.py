"""Reading a scenario, held against the configuration it is played with: every error at once, each with its path and line."""

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from pydantic import ValidationError

from messages.control import ConfigSnapshot, ProviderSpec
from runtime.config.expansion import expand
from runtime.config.loading import document_in, read_file
from runtime.config.problems import ConfigError, ConfigProblem, Path, from_pydantic, path_text
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.scenario_schema import FaultEntry, ProviderEntry, Scenario

_KINDS = {
    "slow": FaultKind.SLOW,
    "outage": FaultKind.OUTAGE,
    "flapping": FaultKind.OUTAGE,
    "brownout": FaultKind.ERRORS,
    "rate_limited": FaultKind.RATE_LIMIT,
    "bad_key": FaultKind.AUTH,
    "cut": FaultKind.CUT,
    "hang": FaultKind.HANG,
    "garbage": FaultKind.GARBAGE,
}


def load_scenario(path: FilePath, snapshot: ConfigSnapshot, environ: Mapping[str, str]) -> Scenario:
    """The scenario in the file at ``path`` for the providers of ``snapshot``. Raises ``ConfigError``."""
    document = document_in(read_file(path)[0], path)
    expanded = expand(document, environ, path.parent)
    findings: list[tuple[Path, str]] = []
    scenario = None
    try:
        scenario = Scenario.model_validate({} if expanded.data is None else expanded.data)
        findings += _against(scenario, snapshot)
    except ValidationError as error:
        findings += from_pydantic(error, Scenario)
    problems = document.problems + expanded.problems
    problems += [ConfigProblem(path_text(at), document.line(at), text) for at, text in findings if at not in expanded.missing]
    if scenario is None or problems:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda one: (one.line or 0, one.path)), str(path))
    return scenario


def _against(scenario: Scenario, snapshot: ConfigSnapshot) -> Iterator[tuple[Path, str]]:
    known = [spec.id for spec in snapshot.providers]
    for name, entry in scenario.providers.items():
        if name not in known:
            yield ("providers", name), f"the configuration has no such provider; it has {', '.join(known[:20])}"
        for index, fault in enumerate(entry.faults):
            if fault.at >= scenario.duration:
                yield ("providers", name, "faults", index, "at"), "is not within the duration"
    for index, burst in enumerate(scenario.load.bursts):
        if burst.at >= scenario.duration:
            yield ("load", "bursts", index, "at"), "is not within the duration"
    if not scenario.load.models and not usual_model(snapshot):
        yield ("load", "models"), "is missing, and no provider of the configuration names its models"


def usual_model(snapshot: ConfigSnapshot) -> str:
    """The model that most providers name, the first of those; empty if none names any."""
    counts: dict[str, int] = {}
    for spec in snapshot.providers:
        for model in spec.models:
            counts[model.name] = counts.get(model.name, 0) + 1
    return max(counts, key=lambda name: counts[name], default="")


def models_asked_for(scenario: Scenario, snapshot: ConfigSnapshot) -> dict[str, float]:
    """Shares by model: those of the scenario, or all for the usual one."""
    return dict(scenario.load.models) or {usual_model(snapshot): 1.0}


def behaviour_of(spec: ProviderSpec, entry: ProviderEntry, asked_for: Mapping[str, float]) -> Behaviour:
    """How a configured provider behaves. One that names no models has every one that is asked for."""
    # A provider can be named before a colon; what it is sent is what follows.
    others = tuple(dict.fromkeys(name.removeprefix(f"{spec.id}:") for name in asked_for))
    limits = entry.limits
    return Behaviour(
        name=spec.id,
        ttfb_ms=entry.ttfb * 1000.0,
        sigma=entry.sigma,
        tokens_per_second=entry.tokens_per_second,
        prefill_tokens_per_second=entry.prefill_tokens_per_second,
        capacity=entry.capacity,
        input_price=0.0,
        output_price=0.0,
        model_prices=tuple((one.upstream, one.input_price or 0.0, one.output_price or 0.0) for one in spec.models),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        burst_s=limits.burst,
        models=tuple(dict.fromkeys(one.upstream for one in spec.models)) or others,
        chunk_tokens=entry.chunk_tokens,
        error_share=entry.error_share,
    )


def faults_of(entry: ProviderEntry, duration_s: float) -> list[tuple[float, Fault]]:
    """When (s from the start) which fault is switched on, in order of time; each ends by itself."""
    found = [begun for fault in entry.faults for begun in _begun(fault, duration_s)]
    return sorted(found, key=lambda begun: begun[0])


def _begun(entry: FaultEntry, duration_s: float) -> Iterator[tuple[float, Fault]]:
    until = duration_s if entry.for_ is None else min(duration_s, entry.at + entry.for_)
    kind = _KINDS[entry.fault]
    if entry.fault != "flapping":
        for_s = None if entry.for_ is None else entry.for_
        yield entry.at, Fault(kind, entry.share, entry.factor, entry.status, entry.retry_after, for_s)
        return
    at = entry.at
    while at < until:
        yield at, Fault(kind, for_s=min(entry.down, until - at))
        at += entry.down + entry.up
