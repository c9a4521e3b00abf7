"""The credentials of the providers, which a new file replaces and the admin API can add to. They never enter a message.

Owns: which credential each provider is called with, and those whose provider or file the registry has not decided about yet.
Always: a provider gets the credential its specification names by its fingerprint, so one that was refused, or that lost a
race for an id, is never used for another. Every secret is told to ``on_secret`` before anything else can happen to it.
"""

from collections.abc import Callable, Iterable, Mapping

from messages.control import ConfigSnapshot
from runtime.config.settings import Credential

OFFERED_MAX = 1_000
"""Credentials that wait for the registry's word; beyond that the oldest is forgotten. One that is never answered for stays."""

Key = tuple[str, str]
"""(provider, fingerprint)"""


def secrets_of(credential: Credential) -> list[str]:
    """What of a credential must not be shown: its key and the values of its own headers."""
    key = [] if credential.api_key is None else [credential.api_key.get_secret_value()]
    return key + [value for _, value in credential.headers]


class Credentials:
    """Credentials by provider. Starts with those of the file."""

    def __init__(self, loaded: Mapping[str, Credential], on_secret: Callable[[Iterable[str]], None]) -> None:
        self._in_force: dict[str, Credential] = dict(loaded)
        self._offered: dict[Key, Credential] = {}
        self._offers: dict[Key, int] = {}
        """How many registrations wait with the same credential."""
        self._proposed: Mapping[Key, Credential] = {}
        """Those of a file that was proposed and is not decided about."""
        self._on_secret = on_secret

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self._in_force)})"

    def get(self, provider: str) -> Credential | None:
        """What a provider is called with; None: nothing."""
        return self._in_force.get(provider)

    def offer(self, credential: Credential) -> None:
        """Keep a credential for a provider that is about to be registered."""
        self._on_secret(secrets_of(credential))
        key = (credential.provider, credential.fingerprint())
        self._offered[key] = credential
        self._offers[key] = self._offers.get(key, 0) + 1
        if len(self._offered) > OFFERED_MAX:
            oldest = next(iter(self._offered))
            del self._offered[oldest], self._offers[oldest]

    def withdraw(self, credential: Credential) -> None:
        """The registration it was offered for has been answered. What came into force by it stays in force."""
        key = (credential.provider, credential.fingerprint())
        left = self._offers.get(key, 0) - 1
        if left > 0:
            self._offers[key] = left
        else:
            self._offers.pop(key, None)
            self._offered.pop(key, None)

    def propose(self, credentials: Mapping[str, Credential]) -> None:
        """Keep the credentials of a new file, in place of those proposed before, while the registry decides about it."""
        for credential in credentials.values():
            self._on_secret(secrets_of(credential))
        self._proposed = {(provider, one.fingerprint()): one for provider, one in credentials.items()}

    def decided(self) -> None:
        """The registry has answered: what did not come into force with the file is forgotten."""
        self._proposed = {}

    def publish(self, snapshot: ConfigSnapshot) -> None:
        """A new generation: the credentials its providers name come into force. Others stay until they are forgotten."""
        if not self._offered and not self._proposed:
            return
        for spec in snapshot.providers:
            key = (spec.id, spec.credential)
            found = self._offered.get(key) or self._proposed.get(key)
            if found is not None:
                self._in_force[spec.id] = found

    def forget(self, provider: str) -> None:
        """Its last call has ended."""
        self._in_force.pop(provider, None)
