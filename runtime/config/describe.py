"""What a configuration comes to, for people (``pointsman check``): the supervision tree, what would be served, and notes."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from actors.probe_bill import paid_model
from messages.control import ProviderSpec
from runtime.config.build_policy import limits_data
from runtime.config.describe_policy import limits_text, policy_data, policy_lines
from runtime.config.quotas import quotas_of
from runtime.config.settings import Loaded
from runtime.config.values import duration_text, is_loopback, size_text

_RESTARTS = "5 restarts in 30s"


def describe(loaded: Loaded) -> list[str]:
    """Plain lines: tree, providers, models, aliases, pools, rules, tenants, limits, notes. No secrets."""
    return [
        *_tree(loaded),
        "",
        *_providers(loaded),
        "",
        *_models(loaded),
        "",
        *_aliases(loaded),
        *policy_lines(loaded.snapshot),
        "",
        *_limits(loaded),
        *_notes(loaded),
    ]


def overview(loaded: Loaded) -> dict[str, Any]:
    """The same as data, for ``--json``: providers, models, aliases, pools, rules, tenants and notes. No secrets."""
    snapshot, listed = loaded.snapshot, listing(loaded)
    return {
        "listen": _address(loaded),
        "default_provider": snapshot.default_provider,
        "strategy": snapshot.routing.strategy,
        "providers": [
            {
                "id": spec.id,
                "kind": spec.kind,
                "base_url": spec.endpoint,
                "enabled": spec.enabled,
                "takes_any_model": spec.takes_any,
                "models": [model.name for model in spec.models],
                "limits": limits_data(spec.limits),
            }
            for spec in snapshot.providers
        ],
        "models": served_models(loaded),
        "aliases": {
            alias: {"stands_for": target, "leads_to": leads_to(loaded, alias, listed)} for alias, target in snapshot.aliases
        },
        **policy_data(loaded.snapshot),
        "notes": list(notes(loaded)),
    }


def served_models(loaded: Loaded) -> dict[str, list[str]]:
    """Public model names, sorted, with the enabled providers that list them in the file, in their order."""
    served = {name: [spec.id for spec in specs if spec.enabled] for name, specs in sorted(listing(loaded).items())}
    return {name: ids for name, ids in served.items() if ids}


def leads_to(loaded: Loaded, name: str, listed: Mapping[str, list[ProviderSpec]] | None = None) -> list[str]:
    """The enabled providers a name may reach as far as the file tells: listed, else pinned, else a default that takes any.

    ``listed``: what ``listing`` gives, for those who ask often.
    """
    specs, aliases = loaded.snapshot.providers, dict(loaded.snapshot.aliases)
    listed = listing(loaded) if listed is None else listed
    for _ in range(len(aliases)):
        if name in listed or name not in aliases:
            break
        name = aliases[name]
    pin, model_name = _split(name)
    pinned = [spec for spec in specs if spec.id == pin] or [spec for spec in specs if spec.kind == pin]
    if name in listed:
        found = listed[name]
    elif pinned:
        found = [spec for spec in pinned if spec.takes_any or spec in listed.get(model_name, ())]
    else:
        found = [spec for spec in specs if spec.id == loaded.snapshot.default_provider and spec.takes_any]
    return [spec.id for spec in found if spec.enabled]


def listing(loaded: Loaded) -> dict[str, list[ProviderSpec]]:
    """Public model names with the providers that list them in the file, in their order, disabled ones too."""
    listed: dict[str, list[ProviderSpec]] = {}
    for spec in loaded.snapshot.providers:
        for model in spec.models:
            listed.setdefault(model.name, []).append(spec)
    return listed


def notes(loaded: Loaded) -> Iterator[str]:
    """What is no error but may surprise."""
    yield from loaded.notes
    for spec in loaded.snapshot.providers:
        credential = loaded.credentials[spec.id]
        if credential.base_url.startswith("http://") and credential.call_headers and not _is_local(credential.base_url):
            yield f"{spec.id}: its key is sent unencrypted (http)"
        for model in spec.models:
            if model.input_price is None or model.output_price is None:
                yield f"{spec.id}: price of {model.name} is not known"
        if spec.probe.kind == "chat" and not spec.lists_models and paid_model(spec) is None:
            yield f"{spec.id}: probes call no model, for its price is not known; the free endpoint alone is asked"
    listed = listing(loaded)
    for alias, _ in loaded.snapshot.aliases:
        if alias in listed:
            yield f"alias {alias}: has no effect, for a provider lists a model of that name"
    for tenant in loaded.snapshot.tenants:
        if tenant.allowed_providers == ():
            yield f"tenant {tenant.name}: no provider is allowed, so all its requests are rejected"
    if not any(spec.enabled for spec in loaded.snapshot.providers):
        yield "no provider is enabled: every request is answered 503"


def _tree(loaded: Loaded) -> Iterator[str]:
    yield "pointsman (one_for_one)"
    yield f"├─ registry             {_RESTARTS}"
    for quota in quotas_of(loaded.snapshot):
        yield f"├─ {f'quota:{quota}':<20} {_RESTARTS}"
    yield f"├─ router               {_RESTARTS}, strategy {loaded.snapshot.routing.strategy}"
    yield f"├─ providers            one_for_one, {_RESTARTS} each"
    for spec, branch in _branches(loaded.snapshot.providers):
        state = "" if spec.enabled else "  (disabled)"
        yield f"│  {branch} provider:{spec.id}{state}"
    yield "├─ observers            restart with back-off for ever"
    yield "│  ├─ aggregator"
    yield "│  └─ prober"
    yield f"└─ edge                 {_address(loaded)}"


def _branches(specs: tuple[ProviderSpec, ...]) -> Iterator[tuple[ProviderSpec, str]]:
    for index, spec in enumerate(specs):
        yield spec, "└─" if index == len(specs) - 1 else "├─"


def _providers(loaded: Loaded) -> Iterator[str]:
    width = max(len(spec.id) for spec in loaded.snapshot.providers)
    yield "providers"
    for spec in loaded.snapshot.providers:
        credential = loaded.credentials[spec.id]
        key = "with key" if credential.call_headers else "without key"
        default = ", default" if spec.id == loaded.snapshot.default_provider else ""
        limits = limits_text(spec.limits) or "no limits"
        yield f"  {spec.id:<{width}}  {spec.kind}  {spec.endpoint}  {key}{default}; {limits}"


def _models(loaded: Loaded) -> Iterator[str]:
    yield "models"
    served = served_models(loaded)
    width = max((len(name) for name in served), default=0)
    for name, providers in served.items():
        yield f"  {name:<{width}}  → {', '.join(providers)}"
    learning = [spec.id for spec in loaded.snapshot.providers if spec.enabled and spec.lists_models]
    if learning:
        yield f"  what these list themselves, any name until that is known → {', '.join(learning)}"


def _aliases(loaded: Loaded) -> Iterator[str]:
    yield "aliases"
    width, listed = max(len(alias) for alias, _ in loaded.snapshot.aliases), listing(loaded)
    for alias, target in loaded.snapshot.aliases:
        providers = leads_to(loaded, alias, listed)
        reached = ", ".join(providers) if providers else "no provider here"
        yield f"  {alias:<{width}}  → {target}  ({'a model of that name goes first' if alias in listed else reached})"


def _limits(loaded: Loaded) -> Iterator[str]:
    server, routing = loaded.server, loaded.snapshot.routing
    yield "limits"
    yield f"  requests in flight {server.max_requests}, body {size_text(server.max_body_bytes)}"
    attempts = routing.failover.max_attempts if routing.failover.enabled else 1
    yield f"  attempts {attempts}, deadline {duration_text(routing.deadline_s)}"
    yield f"  queue {routing.queue_max_length} requests for {duration_text(routing.queue_max_wait_s)}"


def _notes(loaded: Loaded) -> Iterator[str]:
    found = list(notes(loaded))
    if found:
        yield from ("", "notes", *(f"  {note}" for note in found))


def _address(loaded: Loaded) -> str:
    host = f"[{loaded.server.host}]" if ":" in loaded.server.host else loaded.server.host
    scheme = "http" if loaded.server.tls is None else "https"
    return f"{scheme}://{host}:{loaded.server.port}"


def _is_local(base_url: str) -> bool:
    return is_loopback(urlsplit(base_url).hostname or "")


def _split(name: str) -> tuple[str, str]:
    for position, character in enumerate(name):
        if character in ":/":
            return name[:position], name[position + 1 :]
    return "", ""
