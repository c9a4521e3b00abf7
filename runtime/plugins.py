"""Strategies of others: distributions offer them by the entry-point group ``pointsman.strategies``.

An entry point is a ``Strategy``, or a plain function ``rank(bids, request, memory, rng)``. It is known by the name of the
entry point, and its rankings are checked (``actors.router.strategies.guard``). What cannot be used is logged and left out:
a plugin never keeps the daemon from starting. How to write one: docs/strategies.md.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isclass, iscoroutinefunction, signature
from typing import Any

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Strategy

GROUP = "pointsman.strategies"
log = logging.getLogger("pointsman.plugins")


@cache
def all_strategies() -> dict[str, Strategy]:
    """The built-in strategies and those of plugins, by name. Looked up once for each process; not to be changed."""
    return STRATEGIES | load(entry_points(group=GROUP), STRATEGIES)


def load(found: Iterable[EntryPoint], taken: Iterable[str]) -> dict[str, Strategy]:
    """The strategies of ``found`` that can be used, by name, all of them foreign; of two with one name the first.

    A name in ``taken`` cannot be had again. Each one left out is logged as an error with the reason.
    """
    names = set(taken)
    strategies: dict[str, Strategy] = {}
    for point in found:
        try:
            if point.name in names:
                raise ValueError("there is a strategy of that name already")
            strategies[point.name] = _strategy(point.name, point.load())
            names.add(point.name)
        except (Exception, SystemExit) as error:
            # Importing a module may do anything, also leave; what it says is not ours to interpret.
            log.error("strategy %r (%s) is left out: %s: %s", point.name, point.value, type(error).__name__, error)
    return strategies


def _strategy(name: str, offered: Any) -> Strategy:
    if isinstance(offered, Strategy):
        for part in (offered.rank, offered.narrow):
            _check_takes(part, 4)
        if offered.index is not None:
            _check_takes(offered.index, 2)
        if offered.learn is not None:
            _check_takes(offered.learn, 2)
        return replace(offered, name=name, is_foreign=True)
    _check_takes(offered, 4)
    return Strategy(name, offered, is_foreign=True)


def _check_takes(function: Any, count: int) -> None:
    """Raise ``TypeError`` unless ``function`` can be called with so many positional arguments and answers at once."""
    if isclass(function) or not callable(function):
        raise TypeError(f"{function!r} is neither a Strategy nor a function")
    if iscoroutinefunction(function):
        raise TypeError("a coroutine function cannot rank: the router does not wait")
    try:
        taken = signature(function)
    except ValueError:
        return
    try:
        taken.bind(*range(count))
    except TypeError as error:
        raise TypeError(f"it cannot be called with {count} arguments: {error}") from None
