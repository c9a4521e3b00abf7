"""The registry: the actor that owns the configuration, and the pure parts it is made of. ``actor`` first."""

from actors.registry.actor import MODELS_LIMIT, RegistryActor, RegistryMail
from actors.registry.learned import Describe, as_it_came

__all__ = ["MODELS_LIMIT", "Describe", "RegistryActor", "RegistryMail", "as_it_came"]
