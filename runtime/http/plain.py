"""Requests and answers of the rarely asked paths, without whoever serves them."""

from typing import Any, Protocol

import orjson

from runtime.courier.problems import Problem
from runtime.dialects.errors import error_body
from runtime.facts import fact
from runtime.ports import EdgeRequest, Headers


class Asked(Protocol):
    """A request whose body may still be to come."""

    @property
    def head(self) -> EdgeRequest:
        """All of it but the body."""

    @property
    def query(self) -> str:
        """What comes after the path, as it came."""

    @property
    def content_type(self) -> str:
        """Of the body, without parameters."""

    @property
    def has_body(self) -> bool:
        """Whether one was announced."""

    async def body(self) -> bytes | Problem:
        """The body, or why it is refused."""


@fact
class PlainAnswer:
    """A whole answer. ``is_last``: the connection ends with it."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()
    is_last: bool = False


def json_answer(value: Any, status: int = 200) -> PlainAnswer:
    """``value`` as JSON."""
    return PlainAnswer(status, orjson.dumps(value))


def error_answer(problem: Problem, headers: Headers = (), *, is_last: bool = False) -> PlainAnswer:
    """An error of our own."""
    body = error_body(problem.message, problem.kind, problem.code, problem.param)
    return PlainAnswer(problem.status, body, headers=(*problem.headers(), *headers), is_last=is_last)
