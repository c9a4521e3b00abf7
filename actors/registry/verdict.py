"""Whether a configuration holds together, and who is to blame if it does not. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from actors.consistency import Fault
from actors.registry.overlay import Overlay, compose, without_entry
from actors.registry.paths import path_text
from actors.registry.soundness import faults_of
from messages.changes import ChangeFault, ChangeRefused
from messages.control import ConfigSnapshot

TRIALS_MAX = 200
"""Entries of the overlay that are looked at for the one to blame."""
TOLD_MAX = 20
"""Faults told one by one."""

Path = tuple[str | int, ...]


def change_refusal(together: ConfigSnapshot, strategies: Sequence[str]) -> ChangeRefused | None:
    """Why a change is refused that would lead to ``together``; None: it holds."""
    faults = faults_of(together, strategies)
    return _refused(faults[0].path, _each(faults)) if faults else None


def file_refusal(file: ConfigSnapshot, overlay: Overlay, strategies: Sequence[str]) -> ChangeRefused | None:
    """Why a new file is refused; None: it holds together with the overlay.

    A fault that the file has by itself is told as it is. One that only the overlay brings about has the place in the file
    that does not go with it as its path, and the entry of the overlay in its reason.
    """
    twice = _registered_too(file, overlay)
    if twice is not None:
        return twice
    together = compose(file, overlay)
    faults = faults_of(together, strategies)
    if not faults:
        return None
    alone = faults_of(file, strategies)
    if alone:
        return _refused(alone[0].path, _each(alone))
    entry = _to_blame(file, overlay, strategies, len(faults))
    return _refused(_in_file(faults[0].path, file, overlay, together), f"{_reason(faults)}; does not go with {entry}")


def _refused(path: Path, reason: str) -> ChangeRefused:
    return ChangeRefused(ChangeFault.INVALID, path_text(path), reason)


def _each(faults: Sequence[Fault]) -> str:
    """The reason of the first fault, and all others with their paths."""
    told = [f"{path_text(fault.path)}: {fault.reason}" for fault in faults[1:TOLD_MAX]]
    more = [f"and {len(faults) - TOLD_MAX} more"] if len(faults) > TOLD_MAX else []
    return "; ".join((faults[0].reason, *told, *more))


def _reason(faults: Sequence[Fault]) -> str:
    more = len(faults) - 1
    return f"{faults[0].reason} (and {more} more)" if more else faults[0].reason


def _registered_too(file: ConfigSnapshot, overlay: Overlay) -> ChangeRefused | None:
    """Somebody wrote into the file what was registered at run time: which of the two is meant cannot be known."""
    added = frozenset(spec.id for spec in overlay.added if spec.id not in overlay.removed)
    for place, spec in enumerate(file.providers):
        if spec.id in added:
            reason = f"does not go with provider '{spec.id}' registered through the admin API; unregister that one first"
            return _refused(("providers", place, "id"), reason)
    return None


def _to_blame(file: ConfigSnapshot, overlay: Overlay, strategies: Sequence[str], count: int) -> str:
    """The entry of the overlay without which there is less to find fault with."""
    for text, others in islice(_entries(overlay), TRIALS_MAX):
        if len(faults_of(compose(file, others), strategies)) < count:
            return f"{text} through the admin API"
    return "what was changed through the admin API"


def _entries(overlay: Overlay) -> Iterator[tuple[str, Overlay]]:
    """What was said, for people, and the overlay without it: one entry at a time."""
    if overlay.default:
        yield f"default provider '{overlay.default}' set", replace(overlay, default="")
    if overlay.strategy:
        yield f"strategy '{overlay.strategy}' set", replace(overlay, strategy="")
    for name, rule in overlay.rules.items():
        done = "put" if rule is not None else "deleted"
        yield f"rule '{name}' {done}", replace(overlay, rules=without_entry(overlay.rules, name))
    for name in overlay.rules_enabled:
        yield f"rule '{name}' switched", replace(overlay, rules_enabled=without_entry(overlay.rules_enabled, name))
    for name in overlay.removed:
        yield f"provider '{name}' unregistered", replace(overlay, removed=tuple(n for n in overlay.removed if n != name))
    for name, target in overlay.aliases.items():
        done = "put" if target is not None else "deleted"
        yield f"alias '{name}' {done}", replace(overlay, aliases=without_entry(overlay.aliases, name))
    for name in overlay.pool_strategies:
        said = without_entry(overlay.pool_strategies, name)
        yield f"strategy of pool '{name}' set", replace(overlay, pool_strategies=said)
    for name in overlay.tenant_strategies:
        said = without_entry(overlay.tenant_strategies, name)
        yield f"strategy of tenant '{name}' set", replace(overlay, tenant_strategies=said)
    for spec in overlay.added:
        others = tuple(other for other in overlay.added if other is not spec)
        yield f"provider '{spec.id}' registered", replace(overlay, added=others)
    for name in overlay.patches:
        yield f"provider '{name}' changed", replace(overlay, patches=without_entry(overlay.patches, name))


def _in_file(path: Path, file: ConfigSnapshot, overlay: Overlay, together: ConfigSnapshot) -> Path:
    """A place in ``together`` as a place in the file. What only the overlay has misses something in the file's providers."""
    if path[:1] == ("default_provider",) and overlay.default:
        return ("providers",)
    if path[:1] == ("rules",) and len(path) > 1 and isinstance(path[1], int) and path[1] < len(together.rules):
        name = together.rules[path[1]].name
        places = {rule.name: place for place, rule in enumerate(file.rules)}
        if name in places and name not in overlay.rules:
            return ("rules", places[name], *path[2:])
        return ("providers",)
    if path[:1] == ("pools",) and path[1] not in [pool.model for pool in file.pools]:
        return ("providers",)
    return path
