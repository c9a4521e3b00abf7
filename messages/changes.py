"""The words of run-time changes: what the admin API asks of the registry, and its answers.

Every change is all or nothing: it comes into force as a new generation, or is refused with the reason.
"""

from enum import StrEnum

from messages.base import Message, message
from messages.control import ProviderSpec
from messages.policy import Rule


@message("changes.register_provider")
class RegisterProvider(Message):
    """Add a provider. Its credential is with the runtime already. All changes are answered ``Changed`` or ``ChangeRefused``."""

    spec: ProviderSpec


@message("changes.unregister_provider")
class UnregisterProvider(Message):
    """Take a provider out: calls in flight finish."""

    provider: str


@message("changes.patch_provider")
class PatchProvider(Message):
    """Change what is not None."""

    provider: str
    enabled: bool | None = None
    status: str | None = None
    """As ``ProviderSpec.status``."""
    status_reason: str = ""
    weight: int | None = None
    priority: int | None = None


@message("changes.set_default")
class SetDefault(Message):
    """Make a provider the default one."""

    provider: str


@message("changes.set_strategy")
class SetStrategy(Message):
    """Set the strategy of a pool (``model``), of a tenant, or, with neither, of all. Empty: back to what is more general."""

    strategy: str
    model: str = ""
    tenant: str = ""


@message("changes.put_alias")
class PutAlias(Message):
    """Let a name stand for another."""

    name: str
    target: str


@message("changes.delete_alias")
class DeleteAlias(Message):
    """Forget an alias, a built-in one too."""

    name: str


@message("changes.put_rule")
class PutRule(Message):
    """Add a rule, or replace the one of that name."""

    rule: Rule


@message("changes.delete_rule")
class DeleteRule(Message):
    """Forget a rule."""

    name: str


@message("changes.enable_rule")
class EnableRule(Message):
    """Switch a rule on or off."""

    name: str
    enabled: bool


class ChangeFault(StrEnum):
    """Why a change is refused."""

    NOT_FOUND = "not_found"
    """What is to be changed does not exist."""
    CONFLICT = "conflict"
    """It exists already."""
    INVALID = "invalid"
    """The configuration would contradict itself."""


@message("changes.changed")
class Changed(Message):
    """The change is in force."""

    generation: int


@message("changes.change_refused")
class ChangeRefused(Message):
    """Nothing has changed."""

    fault: ChangeFault
    path: str
    """Where, as in the file: ``rules[0].then[1].providers``."""
    reason: str


Change = (
    RegisterProvider
    | UnregisterProvider
    | PatchProvider
    | SetDefault
    | SetStrategy
    | PutAlias
    | DeleteAlias
    | PutRule
    | DeleteRule
    | EnableRule
)
"""What the registry takes from the admin API."""
