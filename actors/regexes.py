"""How much work a regular expression can make: Python's matcher tries one way after another, and has no limit of its own.

The work is estimated from the text: the ways in which each part can match multiply along a sequence and add up over branches,
as the matcher goes back over all of them before it gives up. The estimate is on the safe side. It refuses some harmless
patterns (``(-[0-9]+)*``, whose repeats cannot overlap); the possessive ``(-[0-9]++)*+`` is the same and is let through.

What remains: what is let through may take as long as ``WORK_MAX`` says for a name made to be slow, some milliseconds.
Background: R. Cox, Regular Expression Matching Can Be Simple And Fast (2007).
"""

import re
from dataclasses import dataclass

NAME_LENGTH_MAX = 256
"""Characters of a name; a longer one is matched with no regular expression."""
WORK_MAX = 50_000_000
"""Steps, by the estimate, which is several times too high. Two free stretches (``.*``) keep within it, or three after ``^``."""

_UNREADABLE = re.compile(r"\(\?(?:#|[a-zA-Z]*x)")
_REPEAT = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")
_GROUP = re.compile(r"\?(?:P<\w+>|:|(?P<alone>>|<?[=!])|(?P<back>P=\w+)|(?P<choice>\(\w+\))|(?P<flags>[a-zA-Z-]+):?)")
_LITERALS = frozenset("-_:/@ ")


@dataclass(slots=True)
class _Effort:
    ways: int = 1
    """In how many ways it can match from one place."""
    steps: int = 0
    """What it takes to try them all."""
    first: str = ""
    """The letter it must begin with; empty: not known."""


def compiled_regex(regex: str) -> re.Pattern[str]:
    """Compile ``regex``. Raises ``ValueError`` with a plain reason if it is none, or may take too much work."""
    try:
        pattern = re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if _UNREADABLE.search(regex):
        raise ValueError("comments in a regular expression are not taken")
    if is_too_much(regex):
        raise ValueError("the regular expression could take too long: repeats within repeats, or too many of them")
    return pattern


def is_too_much(regex: str) -> bool:
    """Whether ``regex``, which compiles, may take more than ``WORK_MAX`` steps for a name."""
    reader = _Reader(regex)
    effort = reader.branches()
    starts = 1 if reader.is_anchored else NAME_LENGTH_MAX
    return effort.steps * starts > WORK_MAX


class _Reader:
    """Goes once over the text of a pattern. Comments and verbose patterns are not for it."""

    __slots__ = ("at", "is_anchored", "text")

    def __init__(self, text: str) -> None:
        """It counts as anchored only if it has no branches, one of which might not be."""
        self.text = text
        self.at = 0
        self.is_anchored = text.startswith(("^", r"\A")) and "|" not in text

    def branches(self) -> _Effort:
        """Up to the end of the group or of the text."""
        found = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            found.append(self.sequence())
        firsts = [branch.first.casefold() for branch in found]
        is_exclusive = all(firsts) and len(dict.fromkeys(firsts)) == len(firsts)
        ways = [branch.ways for branch in found]
        return _Effort(max(ways) if is_exclusive else sum(ways), sum(branch.steps for branch in found) + len(found))

    def sequence(self) -> _Effort:
        """Up to the end of the branch."""
        whole = _Effort(first=self.first_letter())
        while self.peek() not in ("", "|", ")"):
            part = self.repeated(self.atom())
            whole.steps = _capped(whole.steps + whole.ways * part.steps)
            whole.ways = _capped(whole.ways * part.ways)
        return whole

    def first_letter(self) -> str:
        """What the branch must begin with, if it is a plain letter that is not optional."""
        letter, after = self.peek(), self.text[self.at + 1 : self.at + 2]
        return letter if letter and (letter.isalnum() or letter in _LITERALS) and (not after or after not in "*?{") else ""

    def peek(self) -> str:
        """The next character; empty at the end."""
        return self.text[self.at : self.at + 1]

    def atom(self) -> _Effort:
        """A character, a set, or a group."""
        letter = self.peek()
        self.at += 1
        if letter == "\\":
            letter = self.peek()
            self.at += 1
            return _Effort(1, NAME_LENGTH_MAX if letter.isdigit() else 1)
        if letter == "[":
            self.skip_set()
        elif letter == "(":
            return self.group()
        return _Effort(1, 1)

    def skip_set(self) -> None:
        """To the end of a set of characters. A bracket that stands first belongs to it."""
        self.at += self.peek() == "^"
        self.at += 1 + (self.peek() == "\\")
        while self.peek() not in ("]", ""):
            self.at += 1 + (self.peek() == "\\")
        self.at += 1

    def group(self) -> _Effort:
        """To the end of a group."""
        opening = _GROUP.match(self.text, self.at)
        if opening is None:
            inner = self.branches()
            self.at += 1
            return inner
        self.at = opening.end()
        if opening["back"]:
            self.at += 1
            return _Effort(1, NAME_LENGTH_MAX)
        inner = self.branches()
        self.at += 1
        return _Effort(1 if opening["alone"] else inner.ways, inner.steps)

    def repeated(self, body: _Effort) -> _Effort:
        """What the quantifiers behind it, if any, make of ``body``."""
        low, high = self.quantifier()
        if (low, high) == (1, 1):
            return body
        is_possessive = self.peek() == "+"
        self.at += self.peek() in ("?", "+") and self.peek() != ""
        ways = steps = 0
        power = 1
        for count in range(high + 1):
            ways += power if count >= low else 0
            steps += power * body.steps
            power *= body.ways
            if steps > WORK_MAX:
                break
        return _Effort(1 if is_possessive else _capped(max(ways, 1)), _capped(steps))

    def quantifier(self) -> tuple[int, int]:
        """Least and most repeats; (1, 1): there is none."""
        simple = {"*": (0, NAME_LENGTH_MAX), "+": (1, NAME_LENGTH_MAX), "?": (0, 1)}.get(self.peek())
        if simple is not None:
            self.at += 1
            return simple
        counted = _REPEAT.match(self.text, self.at)
        if counted is None or counted[0] == "{}":
            return 1, 1
        self.at = counted.end()
        low = int(counted[1] or 0)
        high = int(counted[3]) if counted[3] else (NAME_LENGTH_MAX if counted[2] else low)
        return min(low, NAME_LENGTH_MAX), min(high, NAME_LENGTH_MAX)


def _capped(count: int) -> int:
    return min(count, WORK_MAX + 1)
