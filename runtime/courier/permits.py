"""The couriers' table of permits: the truth about which are out.

Owns: every permit from before its ``Award`` is told until its one end.
Always: a permit is *noted*, then perhaps *granted*, then gone. A restarted provider is told the granted ones
(``Restored``); one that is only noted is in its mailbox still, or was refused.
"""

from dataclasses import dataclass

from messages.calls import Permit


@dataclass(slots=True)
class _Entry:
    provider: str
    permit: Permit
    is_granted: bool = False


class PermitTable:
    """Permits by id, in the order they were noted."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, provider: str, permit: Permit) -> None:
        """Before its ``Award`` is told. Raises ``ValueError`` if the id is in use: that is our own mistake."""
        if permit.permit_id in self._entries:
            raise ValueError(f"permit {permit.permit_id} is out already")
        self._entries[permit.permit_id] = _Entry(provider, permit)

    def grant(self, permit_id: str) -> None:
        """Its ``Granted`` has been seen. An id that is gone (the courier left first) is ignored."""
        entry = self._entries.get(permit_id)
        if entry is not None:
            entry.is_granted = True

    def end(self, permit_id: str) -> None:
        """It was refused, or its ``CallEnded`` has been told."""
        self._entries.pop(permit_id, None)

    def granted_to(self, provider: str) -> tuple[Permit, ...]:
        """The permits that are out at a provider."""
        return tuple(entry.permit for entry in self._entries.values() if entry.provider == provider and entry.is_granted)
