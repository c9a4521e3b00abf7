"""The couriers' table of permits: the truth about which are out.

Owns: every permit from before its ``Award`` is told until its one end.
Always: a permit is *noted*, then perhaps *granted*, then gone. A restarted provider is told the granted ones
(``Restored``); one that is only noted is in its mailbox still, or was refused.
"""

from messages.calls import Permit


class PermitTable:
    """Permits by id, in the order they were noted."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[str, Permit]] = {}
        """(provider, permit) by id; a granted one stays here too."""
        self._granted: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, provider: str, permit: Permit) -> None:
        """Before its ``Award`` is told. Raises ``ValueError`` if the id is in use: that is our own mistake."""
        permit_id = permit.permit_id
        if permit_id in self._noted:
            raise ValueError(f"permit {permit_id} is out already")
        self._noted[permit_id] = (provider, permit)

    def grant(self, permit_id: str) -> None:
        """Its ``Granted`` has been seen. An id that is gone (the courier left first) is ignored."""
        if permit_id in self._noted:
            self._granted[permit_id] = None

    def end(self, permit_id: str) -> None:
        """It was refused, or its ``CallEnded`` has been told."""
        if permit_id in self._noted:
            del self._noted[permit_id]
            if permit_id in self._granted:
                del self._granted[permit_id]

    def granted_to(self, provider: str) -> tuple[Permit, ...]:
        """The permits that are out at a provider."""
        granted = self._granted
        return tuple(permit for at, permit in self._noted.values() if at == provider and permit.permit_id in granted)
