"""Rules of a pool by the labels of the caller's key."""

from collections.abc import Sequence

from messages.policy import PoolRule


def matches(rule: PoolRule, labels: tuple[tuple[str, str], ...]) -> bool:
    """Whether the caller has all labels of the rule; a rule without labels matches everybody."""
    return all(label in labels for label in rule.labels)


def first_match(rules: Sequence[PoolRule], labels: tuple[tuple[str, str], ...]) -> PoolRule | None:
    """The first rule that matches; None: the caller is allowed."""
    for rule in rules:
        if matches(rule, labels):
            return rule
    return None
