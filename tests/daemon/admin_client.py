"""The admin API from outside: what its tests send, and what must hold of every answer."""

from typing import Any

import orjson

from tests.daemon.gateway import Answer, Client


def send(client: Client, method: str, path: str, data: Any = None) -> Answer:
    """An admin request; ``data`` as JSON, None: no body."""
    body = None if data is None else orjson.dumps(data)
    return client.call(method, path, body, {} if body is None else {"content-type": "application/json"})


def done(client: Client, method: str, path: str, data: Any = None, status: int = 200) -> dict[str, Any]:
    """An admin request that must succeed; returns its answer, which carries the generation that is in force now."""
    answer = send(client, method, path, data)
    assert answer.status == status, answer.body
    told: dict[str, Any] = answer.json()
    assert told["generation"] == generation(client)
    return told


def generation(client: Client) -> int:
    """The generation in force."""
    found: int = client.get("/admin/aliases").json()["generation"]
    return found


def everything(client: Client) -> tuple[Any, ...]:
    """The whole configuration as the admin API shows it, without what traffic changes."""
    providers = client.get("/admin/providers").json()
    kept = ("id", "kind", "models", "enabled", "weight", "priority", "metrics", "status", "reason")
    told = [{name: one[name] for name in kept} for one in providers.pop("providers")]
    return (providers, told, *(client.get(f"/admin/{path}").json() for path in ("aliases", "rules", "strategy")))
