"""What no single key can tell: things that contradict each other.

Works on the plain data, before and beside the validation of each key, so that these errors are told together with all
others. Whatever has the wrong shape is passed over here: the validation names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from runtime.config.kinds import BUILT_IN_ALIASES, KINDS
from runtime.config.problems import Path
from runtime.config.values import is_loopback

Finding = tuple[Path, str]


def contradictions(data: Any) -> list[Finding]:
    """Everything in ``data`` that cannot be meant, as path and message."""
    file = _mapping(data)
    providers = [_mapping(entry) for entry in _list(file.get("providers"))]
    findings = [*_exposed(_mapping(file.get("server"))), *_repeated_ids(providers)]
    for index, provider in enumerate(providers):
        findings += [(("providers", index, *path), text) for path, text in provider_contradictions(provider)]
    findings += _default(file.get("default_provider"), providers)
    findings += _circles(_mapping(file.get("aliases")))
    return findings


def exposure(host: str, allow_anonymous: bool) -> str | None:
    """Why the server must not listen on ``host``, or None. Also for a host given on the command line."""
    if is_loopback(host) or allow_anonymous:
        return None
    return "is reachable from other machines and this version knows no keys; set allow_anonymous: true if that is meant"


def _exposed(server: Mapping[str, Any]) -> Iterator[Finding]:
    host, anonymous = server.get("host"), server.get("allow_anonymous", False)
    if isinstance(host, str) and host:
        reason = exposure(host, anonymous is True or str(anonymous).lower() == "true")
        if reason:
            yield ("server", "host"), reason


def _repeated_ids(providers: list[Mapping[str, Any]]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, provider in enumerate(providers):
        name = provider.get("id")
        if not isinstance(name, str):
            continue
        if name in first:
            yield ("providers", index, "id"), f"is already the id of providers[{first[name]}]"
        first.setdefault(name, index)


def provider_contradictions(provider: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything in one entry of ``providers`` that cannot be meant, its path relative to the entry."""
    kind = provider.get("kind")
    if isinstance(kind, str) and kind in KINDS and KINDS[kind].base_url is None and provider.get("base_url") is None:
        yield ("base_url",), f"is required for kind '{kind}'"
    limits = _mapping(provider.get("limits"))
    if limits.get("burst") is not None and limits.get("requests_per_minute") is None:
        yield ("limits", "burst"), "needs requests_per_minute, whose bucket it sizes"
    yield from _probe(provider)
    yield from _repeated_headers(provider)
    yield from _repeated_models(provider)


def _probe(provider: Mapping[str, Any]) -> Iterator[Finding]:
    probe = _mapping(provider.get("probe"))
    if probe.get("kind") != "chat":
        for key in ("model", "max_spend_per_day"):
            if probe.get(key) is not None:
                yield ("probe", key), "needs kind: chat, for only that calls a model"
        return
    model, models = probe.get("model"), _list(provider.get("models"))
    names = [_mapping(entry).get("name") if isinstance(entry, Mapping) else entry for entry in models]
    if isinstance(model, str) and models and model not in names:
        yield ("probe", "model"), "is none of its models"


def _repeated_headers(provider: Mapping[str, Any]) -> Iterator[Finding]:
    seen: set[str] = set()
    for name in _mapping(provider.get("headers")):
        if name.lower() in seen:
            yield ("headers", name), "is given twice; the case of a header's name does not matter"
        if name.lower() == "authorization" and provider.get("api_key"):
            yield ("headers", name), "contradicts api_key, which is sent as this header; give one of them"
        seen.add(name.lower())


def _repeated_models(provider: Mapping[str, Any]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    models = _list(provider.get("models"))
    for index, entry in enumerate(models):
        name = entry if isinstance(entry, str) else _mapping(entry).get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            path: Path = ("models", index) if isinstance(entry, str) else ("models", index, "name")
            yield path, f"is already the name of models[{first[name]}]"
        first.setdefault(name, index)
    default = provider.get("default_model")
    if isinstance(default, str) and first and default not in first:
        yield ("default_model",), "is none of this provider's models"


def _default(default: Any, providers: list[Mapping[str, Any]]) -> Iterator[Finding]:
    ids = [provider["id"] for provider in providers if isinstance(provider.get("id"), str)]
    if isinstance(default, str) and default not in ids:
        yield ("default_provider",), "is the id of no provider"


def _circles(aliases: Mapping[str, Any]) -> Iterator[Finding]:
    targets = {**BUILT_IN_ALIASES, **{name: target for name, target in aliases.items() if isinstance(target, str)}}
    position = {name: index for index, name in enumerate(aliases)}
    walked: set[str] = set()
    for alias in aliases:
        way: dict[str, None] = {}
        name = alias
        while name in targets and name not in walked and name not in way:
            way[name] = None
            name = targets[name]
        if name in way:
            # Each circle once, at its first alias in the file; those that only lead into it go with it.
            steps = list(way)
            circle = steps[steps.index(name) :]
            yield ("aliases", min(circle, key=lambda step: position.get(step, len(position)))), "leads back to itself"
        walked.update(way)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
