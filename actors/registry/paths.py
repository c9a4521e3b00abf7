"""A place in the configuration as people read it in the file."""

from collections.abc import Iterable
from re import compile

_PLAIN = compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_STEP_MAX = 80
"""Characters of a step that are shown."""


def path_text(path: Iterable[str | int]) -> str:
    """``rules[0].then[1].providers``; names that are no plain words in quotes: ``aliases["gpt-3.5"]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN.fullmatch(step) and len(step) <= _STEP_MAX:
            text += f".{step}" if text else step
        else:
            shown = step if len(step) <= _STEP_MAX else step[:_STEP_MAX] + "…"
            escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
            text += '["' + "".join(letter if letter.isprintable() else "�" for letter in escaped) + '"]'
    return text
