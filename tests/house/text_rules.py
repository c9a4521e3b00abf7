"""Rules for what is not Python: documents, project files, and what is installed."""

import re

MACHINE_PATH = re.compile("(?<![A-Za-z0-9_.$~/-])/(?:home|root|Users)" + "/[A-Za-z0-9._-]+")
"""A path in somebody's home: it is there on one machine only."""

DEPENDENCY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ADR_PARTS = ("## Context", "## Decision", "## Consequences")


def machine_paths(text: str) -> list[str]:
    """Paths that are good on one machine only."""
    return [f"line {number}: {match.group()}" for number, line in numbered(text) for match in MACHINE_PATH.finditer(line)]


def numbered(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, from 1."""
    return list(enumerate(text.splitlines(), start=1))


def newest_version(changelog: str) -> str:
    """The version in the first heading of the second level, or an empty string."""
    for line in changelog.splitlines():
        if line.startswith("## "):
            return line.removeprefix("## ").strip("[] ").split()[0].strip("[]").removeprefix("v")
    return ""


def is_version_told(version: str, changelog: str) -> bool:
    """Whether the change log begins with ``version``, or with what has no version yet."""
    return newest_version(changelog) in (version, "Unreleased")


def unreasoned(dependencies: list[str], readme: str) -> list[str]:
    """Dependencies without a row of the README's table that gives a reason."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in readme.splitlines() if line[:1] == "|"]
    reasons: dict[str, str] = {}
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row[0]):
            reasons[name.lower()] = " ".join(row[1:]).strip()
    return [name for name in map(bare_name, dependencies) if not reasons.get(name.lower())]


def bare_name(requirement: str) -> str:
    """The distribution's name in a requirement."""
    match = DEPENDENCY.match(requirement)
    assert match, requirement
    return match.group()


def adr_problems(index: str, records: dict[str, str]) -> list[str]:
    """What is wrong with the decision records: ``records`` is text by file name, ``index`` the list of them."""
    problems = []
    for number, name in enumerate(sorted(records), start=1):
        text = records[name]
        if not name.startswith(f"{number:04}-"):
            problems.append(f"{name}: number {number:04} is due")
        if f"({name})" not in index:
            problems.append(f"{name}: not in the index")
        if not text.startswith(f"# {name[:4]}: "):
            problems.append(f"{name}: does not begin with its number and title")
        problems += [f"{name}: no {part}" for part in ADR_PARTS if part not in text]
    linked = re.findall(r"\((\d{4}-[^)]+\.md)\)", index)
    return problems + [f"{name}: in the index, but not there" for name in linked if name not in records]


def foreign_owners(owners: dict[str, list[str]], packages: list[str], distribution: str) -> list[str]:
    """Other distributions that would install one of our four packages over ours."""
    return [f"{name}: {owner}" for name in packages for owner in owners.get(name, []) if owner != distribution]
