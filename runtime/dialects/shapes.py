"""The parts of an answer that are looked at: all of it is checked to be JSON, and no more is made of it than these.

msgspec reads the whole grammar, as orjson does. Of what is skipped it does not look at two things: whether the bytes are
UTF-8, so give it ASCII; and whether a number fits a double (1e999 is JSON).
"""

from typing import Annotated, Any

import msgspec

from runtime.dialects.usage import TOKENS_MAX

NO_SHAPE = (msgspec.MsgspecError, RecursionError)
"""What reading raises where a body is not JSON, or other than most are."""

Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class _Item(msgspec.Struct, gc=False):
    """An object, whatever is in it."""


class _Read(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class _Written(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class Counts(msgspec.Struct, gc=False):
    """A ``usage`` in which all that is read is as it should be."""

    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: _Read | None = None
    completion_tokens_details: _Written | None = None
    prompt_cache_hit_tokens: Count | None = None
    cached_tokens: Count | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Item]
    usage: Counts | None = None


class _Embeddings(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: Any = None
    """Few have more than one count, and not all the same."""


COMPLETION = msgspec.json.Decoder(_Completion).decode
EMBEDDINGS = msgspec.json.Decoder(_Embeddings).decode
PARTS = msgspec.structs.astuple
"""The fields of a shape at once: one by one they cost more to ask for."""
