"""The bodies of the admin API: JSON objects with known fields of known types. Every refusal names the field."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson

from messages.changes import PatchProvider, SetStrategy
from messages.health import PushMetrics
from runtime.config.problems import ConfigError
from runtime.courier.problems import Problem

T = TypeVar("T")

LATENCY_MS_MAX = 1e9
WEIGHT_MAX = 1_000
PRIORITY_MAX = 1_000_000
STATUSES = ("ready", "unchecked", "unavailable", "auth_failed", "disabled")
"""What may be said of a provider."""
NAME_CHARACTERS_MAX = 200
TEXT_CHARACTERS_MAX = 500
WRONG_MAX = 20
"""Mistakes told one by one."""


class AdminError(Exception):
    """An admin request that cannot be served; ``problem`` is its answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def bad(message: str, param: str | None = None) -> AdminError:
    """A 400."""
    return AdminError(Problem(400, "invalid_request", message, param))


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises ``AdminError``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"The body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise bad("The body must be a JSON object.")
    return given


def read_fields(body: bytes, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object with these fields and no others. Raises ``AdminError``."""
    given = read_object(body)
    _only(given, (*required, *optional))
    for name in required:
        if given.get(name) is None:
            raise bad(f"{name}: is missing", name)
    return given


def read_name(given: Mapping[str, Any], field: str) -> str:
    """A name in a field; where it is absent or null an empty one. Raises ``AdminError``."""
    value = given.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad(f"{field}: expected text", field)
    if len(value) > NAME_CHARACTERS_MAX:
        raise bad(f"{field}: must have {NAME_CHARACTERS_MAX} or fewer characters", field)
    return value


def read_flag(given: Mapping[str, Any], field: str) -> bool:
    """True or false in a field. Raises ``AdminError``."""
    value = given[field]
    if not isinstance(value, bool):
        raise bad(f"{field}: expected true or false", field)
    return value


def read_strategy(body: bytes) -> SetStrategy:
    """``{strategy, model?, tenant?}``; a null strategy takes back what was said. Raises ``AdminError``."""
    given = read_object(body)
    _only(given, ("strategy", "model", "tenant"))
    if "strategy" not in given:
        raise bad("strategy: is missing", "strategy")
    change = SetStrategy(read_name(given, "strategy"), read_name(given, "model"), read_name(given, "tenant"))
    if change.model and change.tenant:
        raise bad("tenant: give a model or a tenant, not both", "tenant")
    return change


def read_patch(provider: str, body: bytes) -> tuple[PatchProvider | None, PushMetrics | None]:
    """What a ``PATCH`` of a provider changes, and what it tells of its performance.

    All of it is looked at before any of it is done. Raises ``AdminError`` with everything that is wrong.
    """
    given = read_object(body)
    wrong = _Wrong()
    wrong.unknown(given, ("enabled", "status", "reason", "weight", "priority", "metrics"))
    present = {name: value for name, value in given.items() if value is not None}
    if not present:
        raise bad("The body changes nothing.")
    enabled = wrong.taken(read_flag, present, "enabled") if "enabled" in present else None
    status = wrong.taken(_status, present)
    if "reason" in present and "status" not in present:
        wrong.errors.append(bad("reason: goes with a status only", "reason"))
    reason = wrong.taken(_text, present, "reason") or ""
    weight = wrong.taken(_whole, present, "weight", 0, WEIGHT_MAX)
    priority = wrong.taken(_whole, present, "priority", -PRIORITY_MAX, PRIORITY_MAX)
    metrics = wrong.taken(_metrics, present["metrics"]) if "metrics" in present else None
    wrong.tell()
    if enabled is None and status is None and weight is None and priority is None:
        return None, metrics
    return PatchProvider(provider, enabled, status, reason, weight, priority), metrics


class _Wrong:
    """What is wrong with a body, one after the other."""

    def __init__(self) -> None:
        self.errors: list[AdminError] = []

    def taken(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """What ``read`` gives; None where that is wrong."""
        try:
            return read(*arguments)
        except AdminError as error:
            self.errors.append(error)
            return None

    def unknown(self, given: Mapping[str, Any], known: Iterable[str], before: str = "") -> None:
        """Fields that there are not. ``before``: what stands before their names in a path."""
        known = tuple(known)
        for name in given:
            if name not in known:
                shown = "".join(char if char.isprintable() else "?" for char in name[:NAME_CHARACTERS_MAX])
                told = f"{before}{shown}: unknown field; known are: {', '.join(known)}"
                self.errors.append(bad(told, f"{before}{shown}"))

    def tell(self) -> None:
        """Raise one ``AdminError`` for all, if there is any, with the path of the first."""
        if self.errors:
            told = [error.problem.message for error in self.errors[:WRONG_MAX]]
            more = len(self.errors) - len(told)
            raise bad("; ".join([*told, *([f"and {more} more"] if more else [])]), self.errors[0].problem.param)


def parsed(parse: Callable[[dict[str, Any]], T], data: dict[str, Any]) -> T:
    """What the configuration's own reader makes of an entry. Raises ``AdminError`` with everything that is wrong."""
    try:
        return parse(data)
    except ConfigError as error:
        told = [f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in error.problems]
        raise bad("; ".join(told), error.problems[0].path or None) from error


def _only(given: Mapping[str, Any], known: Iterable[str]) -> None:
    wrong = _Wrong()
    wrong.unknown(given, known)
    wrong.tell()


def _status(given: Mapping[str, Any]) -> str | None:
    if "status" not in given:
        return None
    status = given["status"]
    if status not in STATUSES:
        raise bad(f"status: expected one of {', '.join(STATUSES)}", "status")
    return str(status)


def _text(given: Mapping[str, Any], field: str) -> str:
    value = given.get(field, "")
    if not isinstance(value, str) or not value.isprintable():
        raise bad(f"{field}: expected one line of text", field)
    if len(value) > TEXT_CHARACTERS_MAX:
        raise bad(f"{field}: must have {TEXT_CHARACTERS_MAX} or fewer characters", field)
    return value


def _whole(given: Mapping[str, Any], field: str, least: int, most: int) -> int | None:
    if field not in given:
        return None
    value = given[field]
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad(f"{field}: expected a whole number", field)
    if not least <= value <= most:
        raise bad(f"{field}: must be from {least} to {most}", field)
    return value


def _metrics(given: Any) -> PushMetrics:
    if not isinstance(given, dict):
        raise bad("metrics: expected a mapping", "metrics")
    bounds = {"average_latency_ms": LATENCY_MS_MAX, "error_rate": 1.0, "load": 1.0}
    wrong = _Wrong()
    wrong.unknown(given, bounds, "metrics.")
    if all(value is None for value in given.values()):
        raise bad("metrics: tells nothing", "metrics")
    read = [wrong.taken(_number, given.get(name), f"metrics.{name}", most) for name, most in bounds.items()]
    wrong.tell()
    latency_ms, error_rate, load = read
    return PushMetrics(latency_ms / 1000 if latency_ms is not None else None, error_rate, load)


def _number(value: Any, path: str, most: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad(f"{path}: expected a number", path)
    if not 0 <= value <= most:
        raise bad(f"{path}: must be from 0 to {most:g}", path)
    return float(value)
