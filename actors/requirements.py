"""What a request needs of whoever is to serve it, held against what a configuration says of a provider. Pure.

A provider that is called for a bid answers by these words. The router says them of those it did not call, and of those that
said no for a reason that comes later (docs/routing.md, "A decision, stage by stage"). What a provider alone knows, such as
that its upstream has no such model after all, is not here.
"""

from collections.abc import Container

from messages.control import ModelSpec, ProviderSpec
from messages.routing import NoBidReason, RequestProfile


def lacking(spec: ProviderSpec, model: ModelSpec | None, profile: RequestProfile) -> tuple[NoBidReason, str] | None:
    """Why a provider cannot serve a request, by its configuration, with the details; None: it can.

    ``model`` is its entry for the request's model, None where it takes a name that it does not list.
    """
    missing = missing_of(profile.needs, spec.capabilities)
    if missing:
        return NoBidReason.MISSING_CAPABILITY, missing
    if model is None:
        return None
    max_tokens, window, longest = profile.max_tokens, model.context_window, model.max_output_tokens
    wanted = wanted_tokens(profile.prompt_tokens, max_tokens)
    if window is not None and wanted > window:
        return NoBidReason.CONTEXT_TOO_LONG, too_long_for_window(wanted, window)
    if max_tokens is not None and longest is not None and max_tokens > longest:
        return NoBidReason.CONTEXT_TOO_LONG, too_long_an_answer(max_tokens, longest)
    return None


def missing_of(needs: tuple[str, ...], capabilities: Container[str]) -> str:
    """The ``needs`` that are not among the capabilities, separated by commas; empty if all are."""
    return ", ".join([need for need in needs if need not in capabilities])


def wanted_tokens(prompt_tokens: int, max_tokens: int | None) -> int:
    """The tokens a context window must hold: the prompt, and the answer as far as the request bounds it."""
    return prompt_tokens if max_tokens is None else prompt_tokens + max_tokens


def too_long_for_window(wanted: int, window: float) -> str:
    """In words: prompt and answer together are longer than the context window. All in tokens."""
    return f"about {wanted} tokens do not fit into {window:.0f}"


def too_long_an_answer(max_tokens: int, longest: float) -> str:
    """In words: the answer asked for is longer than the model's longest. Both in tokens."""
    return f"max_tokens {max_tokens} > {longest:.0f}, the longest answer of the model"
