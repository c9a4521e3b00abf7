"""The couriers' table of permits: the truth about which are out.

Owns: every permit from before its ``Award`` is told until its one end.
Always: a permit is *noted*, then perhaps *granted*, then gone. A restarted provider is told the granted ones
(``Restored``); one that is only noted is in its mailbox still, or was refused.
"""

from abc import abstractmethod

from messages.calls import Permit


class Noted:
    """A permit as whoever has asked for it knows it. It is written down (``permit``) only for who asks for it."""

    def __init__(self, provider: str, permit_id: str) -> None:
        self.provider = provider
        self.permit_id = permit_id

    @property
    @abstractmethod
    def is_granted(self) -> bool:
        """Whether the provider has said so."""

    @abstractmethod
    def permit(self) -> Permit:
        """What a restarted provider is told of it."""


class PermitTable:
    """Permits by id, in the order they were noted."""

    def __init__(self) -> None:
        self._noted: dict[str, Noted] = {}

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, noted: Noted) -> None:
        """Before its ``Award`` is told. Raises ``ValueError`` if the id is in use: that is our own mistake."""
        permit_id = noted.permit_id
        if permit_id in self._noted:
            raise ValueError(f"permit {permit_id} is out already")
        self._noted[permit_id] = noted

    def end(self, permit_id: str) -> None:
        """It was refused, or its ``CallEnded`` has been told."""
        if permit_id in self._noted:
            del self._noted[permit_id]

    def granted_to(self, provider: str) -> tuple[Permit, ...]:
        """The permits that are out at a provider."""
        return tuple([noted.permit() for noted in self._noted.values() if noted.provider == provider and noted.is_granted])
