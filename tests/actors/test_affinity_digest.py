"""What a prompt begins with: shared by all turns of a conversation, never its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.dialects.affinity import TOKENS_MIN, affinity_of

LONG = 5000


def talk(*contents: Any) -> dict[str, Any]:
    roles = ("system", "user", "assistant", "user", "assistant")
    return {"messages": [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]}


def test_pain_24_all_turns_of_a_conversation_have_one_digest_and_others_another() -> None:
    first = affinity_of("chat", talk("Be brief.", "What is a pointsman?"), LONG)
    assert first
    assert affinity_of("chat", talk("Be brief.", "What is a pointsman?", "A person.", "And a train?"), LONG) == first
    assert affinity_of("chat", talk("Be brief.", "What is a train?"), LONG) != first
    assert affinity_of("chat", talk("Be long.", "What is a pointsman?"), LONG) != first


def test_parts_of_a_message_count_by_their_text() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}, "rubbish"]
    assert affinity_of("chat", talk("Be brief.", parts), LONG) == affinity_of("chat", talk("Be brief.", parts[:1]), LONG)


def test_short_prompts_and_embeddings_have_none() -> None:
    assert affinity_of("chat", talk("Be brief.", "Hello"), TOKENS_MIN - 1) == ""
    assert affinity_of("chat", talk("Be brief.", "Hello"), TOKENS_MIN) != ""
    assert affinity_of("embeddings", {"input": "long"}, LONG) == ""


def test_the_clients_own_key_goes_first_however_short_the_prompt() -> None:
    keyed = talk("Be brief.", "Hello") | {"prompt_cache_key": "user-1"}
    assert affinity_of("chat", keyed, 3) == affinity_of("chat", talk("Other") | {"prompt_cache_key": "user-1"}, LONG) != ""


def test_a_completion_is_known_by_the_beginning_of_its_prompt() -> None:
    assert affinity_of("completions", {"prompt": "x" * 20_000}, LONG) == affinity_of(
        "completions", {"prompt": "x" * 30_000}, LONG
    )
    assert affinity_of("completions", {"prompt": ["a", "b"]}, LONG) == ""


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_the_messages_are_there_is_a_digest_or_none(messages: Any) -> None:
    for key in ("messages", "prompt", "prompt_cache_key"):
        for endpoint in ("chat", "completions"):
            found = affinity_of(endpoint, {key: messages}, LONG)
            assert found == "" or (len(found) == 16 and set(found) <= set("0123456789abcdef"))


@pytest.mark.parametrize("text", ["\ud800", "\x00", "🚂"])
def test_any_text_can_be_digested(text: str) -> None:
    assert affinity_of("chat", talk("Be brief.", text), LONG)
