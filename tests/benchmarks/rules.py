"""What rules cost a request: ``python -m tests.benchmarks.rules`` prints µs of ``candidates`` with all verdicts.

Rules that cannot match are for other models, or are patterns that fit no name here, so that their number should not count.
Rules that may match look at the user, which no index knows: all are asked, and none holds. The least of seven runs.
"""

from collections.abc import Callable
from time import perf_counter

from actors.router.rules.book import RuleBook
from actors.router.rules.facts import Facts
from messages.policy import NORMAL, Condition, ConditionKind, Rule
from messages.routing import RequestProfile

ROUNDS = 20_000
REPEATS = 7
COUNTS = (0, 10, 1000)

MADE: dict[str, Callable[[int], Condition]] = {
    "for other models": lambda n: Condition(ConditionKind.MODEL, names=(f"other-{n}",)),
    "patterns that do not fit": lambda n: Condition(ConditionKind.MODEL_PATTERN, names=(f"other-{n}-*x",)),
    "may match": lambda n: Condition(ConditionKind.USER, names=(f"user-{n}",)),
}


def asking(book: RuleBook, facts: Facts, rounds: int) -> float:
    """µs for each request."""
    profile = facts.profile
    started = perf_counter()
    for _ in range(rounds):
        for rule in book.candidates(profile.model, facts.model, profile.tenant):
            if rule.verdict(facts, None) is not False:
                raise AssertionError("no rule here holds")
    return (perf_counter() - started) / rounds * 1e6


def unheard(book: RuleBook, rounds: int) -> float:
    """µs of ``candidates`` for each name that was never asked for."""
    names = [f"new-{number}" for number in range(rounds)]
    started = perf_counter()
    for name in names:
        book.candidates(name, name, "")
    return (perf_counter() - started) / rounds * 1e6


def main() -> None:
    facts = Facts(RequestProfile(model="gpt-4o", tenant="acme"), "gpt-4o", 0.0, NORMAL)
    for kind, make in MADE.items():
        for count in COUNTS:
            rules = [Rule(f"r{number}", when=make(number)) for number in range(count)]
            started = perf_counter()
            book = RuleBook.build(rules)
            built_ms = (perf_counter() - started) * 1e3
            rounds = ROUNDS if count < 1000 else ROUNDS // 100
            known = min(asking(book, facts, rounds) for _ in range(REPEATS))
            new = min(unheard(RuleBook.build(rules), rounds // 10) for _ in range(REPEATS))
            print(f"{count:5} rules, {kind}: {known:8.2f} µs; a new name {new:8.2f} µs; built in {built_ms:.1f} ms")


if __name__ == "__main__":
    main()
