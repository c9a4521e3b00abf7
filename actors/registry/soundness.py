"""What is wrong with a snapshot, as the file's own check would find it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from messages.control import ConfigSnapshot


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    path: tuple[str | int, ...]
    reason: str


def faults_of(snapshot: ConfigSnapshot, strategies: Sequence[str]) -> list[Fault]:
    """Everything that contradicts itself in ``snapshot``. ``strategies``: the known names; none given: any."""
    known = {spec.id for spec in snapshot.providers}
    faults = []
    if snapshot.default_provider and snapshot.default_provider not in known:
        faults.append(Fault(("default_provider",), f"there is no provider '{snapshot.default_provider}'"))
    for place, rule in enumerate(snapshot.rules):
        for step, action in enumerate(rule.then):
            missing = [name for name in action.names if name not in known] if action.kind == "providers" else []
            faults += [Fault(("rules", place, "then", step, "providers"), f"there is no provider '{n}'") for n in missing]
    return faults
