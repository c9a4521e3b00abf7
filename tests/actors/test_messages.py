"""What holds for every message class."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from messages.base import TAGS, Message, message
from messages.control import Timer
from messages.health import ProbeWish

SECRET_WORDS = {"key", "secret", "password", "token", "authorization", "cookie", "bearer"}
NAMES_ONLY = {"routing.gathered.key"}
"""Fields that hold such a word for another reason: this one names a fan-out."""


def suspicious(tag: str, name: str) -> bool:
    return bool(SECRET_WORDS & set(name.lower().split("_"))) and f"{tag}.{name}" not in NAMES_ONLY


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_pain_23_no_message_has_a_field_that_could_hold_a_secret(tag: str) -> None:
    assert [field.name for field in fields(TAGS[tag]) if suspicious(tag, field.name)] == []


def test_pain_23_the_search_for_secrets_finds_one() -> None:
    assert suspicious("a.b", "api_key")
    assert suspicious("a.b", "bearer_token")
    assert not suspicious("calls.usage", "input_tokens")
    assert not suspicious("control.provider_spec", "credential")


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_every_message_is_a_slotted_dataclass_of_its_tag(tag: str) -> None:
    cls = TAGS[tag]

    assert issubclass(cls, Message)
    assert is_dataclass(cls)
    assert tag == cls.TAG
    assert not hasattr(cls, "__dict__") or "__dict__" not in cls.__slots__
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")


def test_a_message_is_written_once_under_test() -> None:
    alarm = Timer("wake")

    with pytest.raises(AttributeError, match="is a fact"):
        alarm.what = "sleep"  # type: ignore[misc] # what the test is about
    assert alarm.what == "wake"


def test_a_message_takes_no_field_it_does_not_have() -> None:
    with pytest.raises(AttributeError):
        Timer("wake").colour = "red"  # type: ignore[attr-defined] # what the test is about


def test_equal_messages_are_one_fact() -> None:
    assert ProbeWish("a", True, "silent") == ProbeWish("a", True, "silent")
    assert len({ProbeWish("a", True, "silent"), ProbeWish("a", True, "silent")}) == 1


def test_a_tag_cannot_be_taken_twice() -> None:
    class Impostor(Message):
        """Nothing."""

    made: Any = message("control.timer")
    with pytest.raises(ValueError, match=r"control\.timer"):
        made(Impostor)
    assert TAGS["control.timer"] is Timer
