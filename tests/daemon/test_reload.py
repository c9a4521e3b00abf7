"""Reload of the real daemon: by its file, by SIGHUP, by the admin API; whole or not at all, and without loss (FEATURES B9)."""

import asyncio
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import orjson

from tests.daemon.gateway import Answer, Gateway, eventually, provider
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, ScriptedUpstream, answers, error, event

RELOADS = 100
USERS = 4
BAD: tuple[tuple[bytes, str | None, str], ...] = (
    (b"providers: [", None, "not YAML"),
    (b"providers: [{id: a, kind: telepathy}]", "providers[0].kind", "unknown kind"),
    (b"providers: [{id: a, kind: openai, wieght: 3}]", "providers[0].wieght", "wieght"),
)


def file_of(upstream: ScriptedUpstream, *names: str, **more: Any) -> dict[str, Any]:
    """A file with these providers, all behind the same script."""
    upstream.scripts.update(dict.fromkeys(names, answers))
    return {"providers": [provider(name, upstream.base_url(name), ["m"], **more) for name in names]}


def reload(gateway: Gateway, file: Mapping[str, Any] | bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    if file is not None:
        gateway.write(file)
    return gateway.post("/admin/reload", b"{}", headers)


def generation(gateway: Gateway) -> int:
    found: int = gateway.get("/admin/aliases").json()["generation"]
    return found


def test_pain_21_a_changed_file_is_in_force_by_itself(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a")) as gateway:
        gateway.write(file_of(upstream, "a", "b", weight=4))

        gateway.wait_for_log("the configuration file has changed")
        gateway.wait_for_log("configuration reloaded: generation 2, 2 providers")
        assert {name: one["weight"] for name, one in gateway.providers().items()} == {"a": 4, "b": 4}


def test_pain_21_a_bad_file_changes_nothing_and_is_explained_in_the_log_and_the_next_good_one_is_taken(
    upstream: ScriptedUpstream,
) -> None:
    with Gateway(file_of(upstream, "a"), may_complain=True) as gateway:
        gateway.write(file_of(upstream, "a", weight=-3))
        line = gateway.wait_for_log("reload failed, nothing has changed")
        assert "providers[0].weight: must be 0 or more" in line
        assert (generation(gateway), gateway.chat("m").status) == (1, 200)

        gateway.write(file_of(upstream, "a", weight=3))
        gateway.wait_for_log("configuration reloaded: generation 2")
        assert gateway.log().count("reload failed") == 1


def test_sighup_puts_the_file_in_force_at_once(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a")) as gateway:
        gateway.write(file_of(upstream, "a", priority=7))
        gateway.signal(signal.SIGHUP)

        gateway.wait_for_log("configuration reloaded")
        assert gateway.providers()["a"]["priority"] == 7


def test_D2_the_admin_api_reloads_and_tells_the_generation_and_what_needs_a_restart(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a")) as gateway:
        changed = file_of(upstream, "a", "b") | {"server": {"drain": "3s", "port": 9}, "telemetry": {"sample_ratio": 0.5}}

        answer = reload(gateway, changed)

        # The port was given on the command line, and stays given.
        told = {"generation": 2, "needs_restart": ["server.drain", "telemetry.sample_ratio"]}
        assert (answer.status, answer.json()) == (200, told)
        gateway.wait_for_log("server.drain, telemetry.sample_ratio cannot change at run time")
        assert list(gateway.providers()) == ["a", "b"]
        again = reload(gateway)
        assert again.json()["generation"] == 3


def test_pain_21_the_admin_api_says_what_is_wrong_with_a_file_and_where(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a"), may_complain=True) as gateway:
        for file, path, reason in BAD:
            answer = reload(gateway, file)
            assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_request", path)
            assert reason in answer.error["message"]
            assert str(gateway.file) in answer.error["message"]
            assert (generation(gateway), list(gateway.providers())) == (1, ["a"])
        assert gateway.chat("m").status == 200
        gateway.file.unlink()
        assert reload(gateway).error["message"] == f"{gateway.file}: cannot be read: No such file or directory"
        gateway.write(file_of(upstream, "a"))


def test_pain_21_a_file_that_contradicts_the_admin_api_is_refused_with_both_paths(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a", "b"), may_complain=True) as gateway:
        gateway.call("PUT", "/admin/default", b'{"provider":"b"}', {"content-type": "application/json"})

        answer = reload(gateway, file_of(upstream, "a"))

        assert (answer.status, answer.error["param"]) == (400, "providers")
        assert "set through the admin API" in answer.error["message"]
        assert list(gateway.providers()) == ["a", "b"]


def test_B8_a_file_whose_redirect_closes_a_circle_with_one_of_the_admin_api_is_refused(upstream: ScriptedUpstream) -> None:
    file = file_of(upstream, "a", "b")
    for entry in file["providers"]:
        entry["models"] = ["m", "n"]
    there = {"name": "there", "when": {"model": "m"}, "then": {"redirect": "n"}}
    with Gateway(file, may_complain=True) as gateway:
        back = b'{"when":{"model":"n"},"then":[{"redirect":"m"}]}'
        assert gateway.call("PUT", "/admin/rules/back", back, {"content-type": "application/json"}).status == 200

        answer = reload(gateway, {**file, "rules": [there]})

        assert (answer.status, answer.error["param"]) == (400, "rules[0].then[0].redirect")
        assert "rule 'there' sends 'm' to 'n', rule 'back' sends 'n' to 'm'" in answer.error["message"]
        assert "does not go with rule 'back' put through the admin API" in answer.error["message"]
        assert (generation(gateway), gateway.chat("m").status) == (2, 200)


def test_no_body_need_be_sent_where_there_is_nothing_to_say(upstream: ScriptedUpstream) -> None:
    with Gateway(file_of(upstream, "a")) as gateway:
        for path in ("/admin/reload", "/admin/providers/a/probe", "/admin/providers/a/reset"):
            assert gateway.call("POST", path).status == 200, path
            assert gateway.call("POST", path, b"", {"content-type": "text/plain"}).status == 415, path


def test_the_reload_is_as_well_guarded_as_the_rest_of_the_admin_api(upstream: ScriptedUpstream) -> None:
    file = file_of(upstream, "a") | {"server": {"admin_key": "${KEY}"}}
    with Gateway(file, {"KEY": "hunter2-hunter2"}) as gateway:
        assert reload(gateway).status == 401
        assert reload(gateway, headers={"authorization": "Bearer wrong"}).status == 401
        assert gateway.post("/admin/reload", b"{}", {"content-type": "text/plain"}).status in (401, 415)
        key = {"authorization": "Bearer hunter2-hunter2"}
        assert reload(gateway, headers=key).json()["generation"] == 2
        assert gateway.get("/admin/reload", key).status == 405
        assert "hunter2" not in gateway.log()


def test_B9_a_rotated_key_is_called_with_from_the_next_call_on_and_the_counts_stay(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-old-old-old")
    upstream.forget()
    with Gateway(file_of(upstream, "a", api_key=f"file:{secret}")) as gateway:
        for _ in range(3):
            gateway.chat("m")
        # The file stays as it is: its secret's file is watched too.
        secret.write_text("sk-new-new-new")
        gateway.wait_for_log("configuration reloaded")
        gateway.chat("m")

        keys = [exchange.header("authorization") for exchange in upstream.requests("a")]
        assert keys == ["Bearer sk-old-old-old"] * 3 + ["Bearer sk-new-new-new"]
        assert (gateway.providers()["a"]["requests"], gateway.providers()["a"]["successes"]) == (4, 4)
        assert "sk-new" not in gateway.log()


def test_B9_a_stream_from_a_provider_that_was_removed_runs_to_its_end(upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()

    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(ROLE + event({"content": "first"}))
        await gate.passed()
        await exchange.chunk(event({"content": "last"}, "stop") + DONE)
        await exchange.end_stream()

    file = file_of(upstream, "a")
    upstream.scripts["a"] = slow
    with Gateway(file) as gateway:
        body = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]})
        with gateway.opened("POST", "/v1/chat/completions", body, {"content-type": "application/json"}) as response:
            assert b"first" in response.read1()
            assert reload(gateway, file_of(upstream, "b")).status == 200
            assert list(gateway.providers()) == ["b"]
            assert gateway.chat("m").header("x-pointsman-provider") == "b"
            gate.open()
            rest = response.read()
        assert b"last" in rest
        assert rest.endswith(DONE)


def test_B9_state_is_kept_over_a_reload_and_an_open_circuit_stays_open(upstream: ScriptedUpstream) -> None:
    async def down(exchange: Exchange) -> None:
        await exchange.reply(503, error("down"))

    file = file_of(upstream, "a", "b", circuit={"failures": 1, "open_for": "60s"})
    upstream.scripts["a"] = down
    with Gateway(file | {"routing": {"strategy": "first"}}) as gateway:
        assert gateway.chat("m").header("x-pointsman-provider") == "b"
        before = gateway.providers()
        assert before["a"]["circuit"] == "open"

        assert reload(gateway, file | {"routing": {"strategy": "cost"}}).status == 200

        after = gateway.providers()
        for name in "ab":
            for what in ("circuit", "requests", "successes", "failures", "in_flight"):
                assert after[name][what] == before[name][what]
        assert gateway.chat("m").header("x-pointsman-strategy") == "cost"


class User(threading.Thread):
    """One who asks all the time, streaming and not."""

    def __init__(self, gateway: Gateway, is_over: threading.Event, seed: str) -> None:
        super().__init__(daemon=True)
        self._gateway = gateway
        self._is_over = is_over
        self._rng = Random(seed)
        self.served: list[str] = []
        self.wrongs: list[str] = []

    def run(self) -> None:
        while not self._is_over.is_set():
            is_stream = self._rng.random() < 0.5
            answer = self._gateway.chat("m", stream=is_stream)
            is_whole = DONE in answer.body if is_stream else b'"usage"' in answer.body
            if answer.status != 200 or not is_whole:
                self.wrongs.append(f"{answer.status}: {answer.body[:300]!r}")
            self.served.append(answer.header("x-pointsman-provider") or "")


def test_pain_21_B9_a_hundred_reloads_of_the_daemon_under_load_lose_no_request_and_no_count(
    upstream: ScriptedUpstream,
) -> None:
    rng, names = Random("reloads"), ("a", "b", "c", "d")

    def drawn() -> dict[str, Any]:
        chosen = ["a", *rng.sample(names[1:], rng.randint(1, 3))]
        file = file_of(
            upstream,
            *chosen,
            api_key=f"sk-{rng.randint(1, 3)}{'x' * 20}",
            weight=rng.randint(1, 9),
            limits={"max_concurrency": rng.choice((2, 3, None))},
        )
        strategy = rng.choice(("adaptive", "round_robin", "least_latency", "random", "weighted"))
        # So that each request is one call.
        return file | {"routing": {"strategy": strategy, "hedge": {"enabled": False}, "explore": {"enabled": False}}}

    is_over = threading.Event()
    with Gateway(drawn(), may_complain=True) as gateway:
        users = [User(gateway, is_over, f"user/{number}") for number in range(USERS)]
        for user in users:
            user.start()
        refused = 0
        for number in range(RELOADS):
            if number % 9 == 4:
                assert reload(gateway, BAD[number % len(BAD)][0]).status == 400
                refused += 1
            else:
                assert reload(gateway, drawn()).status == 200
        is_over.set()
        for user in users:
            user.join()

        assert [wrong for user in users for wrong in user.wrongs] == []
        served = [name for user in users for name in user.served]
        # The watch may have had a file reloaded that was asked for too.
        assert generation(gateway) >= 1 + RELOADS - refused
        counts = {name: served.count(name) for name in names if name in served}
        eventually(lambda: total(gateway.stats(), "requests") == len(served), "the last ends are counted")
        stats = gateway.stats()
        assert {line["name"]: (line["requests"], line["successes"]) for line in stats["providers"]} == {
            name: (count, count) for name, count in counts.items()
        }
        assert (stats["router"]["total"], stats["router"]["succeeded"]) == (len(served), len(served))
        stayed = gateway.providers()["a"]
        assert (stayed["requests"], stayed["successes"], stayed["in_flight"]) == (counts["a"], counts["a"], 0)
        assert stats["system"]["dead_letters"] == 0


def test_pain_21_B9_a_hundred_reloads_of_the_daemon_among_hedges_lose_no_request_and_no_count(
    upstream: ScriptedUpstream,
) -> None:
    rng, names = Random("reloads among hedges"), ("a", "b", "c", "d")
    luck = Random("slow ones")

    async def moody(exchange: Exchange) -> None:
        # Slow, not broken: so every call beyond the first of a request is one beside it.
        if exchange.body and luck.random() < 0.3:
            await asyncio.sleep(0.1)
        await answers(exchange)

    def drawn() -> dict[str, Any]:
        chosen = ["a", *rng.sample(names[1:], rng.randint(1, 3))]
        file = file_of(upstream, *chosen, api_key=f"sk-{rng.randint(1, 3)}{'x' * 20}", weight=rng.randint(1, 9))
        upstream.scripts.update(dict.fromkeys(names, moody))
        routing = {
            "strategy": rng.choice(("adaptive", "least_latency", "round_robin")),
            "hedge": {"after": rng.choice(("20ms", "auto")), "max_share": rng.choice((0.2, 1)), "enabled": rng.random() < 0.9},
            "explore": {"max_share": rng.choice((0.03, 0.3)), "idle": "100ms"},
        }
        return file | {"routing": routing}

    is_over = threading.Event()
    with Gateway(drawn()) as gateway:
        users = [User(gateway, is_over, f"user/{number}") for number in range(USERS)]
        for user in users:
            user.start()
        for _ in range(RELOADS):
            assert reload(gateway, drawn()).status == 200
        # Where reloads are quick there were few requests so far. That nothing is lost means something only if there are some.
        eventually(lambda: reload(gateway, drawn()).status == 200 and beside(gateway.stats()) > 20, "some calls beside others")
        is_over.set()
        for user in users:
            user.join()

        assert [wrong for user in users for wrong in user.wrongs] == []
        served = sum(len(user.served) for user in users)
        eventually(lambda: all(one["in_flight"] == 0 for one in gateway.providers().values()), "the last ends are counted")
        stats = gateway.stats()
        assert total(stats, "requests") == served + beside(stats)
        # Of two that end in the same instant both have answered, and one of them for nothing.
        assert total(stats, "lost") == total(stats, "cancelled") <= beside(stats)
        assert total(stats, "successes") == served + beside(stats) - total(stats, "lost")
        assert stats["router"]["total"] == served
        assert stats["system"]["dead_letters"] == 0


def total(stats: dict[str, Any], what: str) -> int:
    return sum(line[what] for line in stats["providers"])


def beside(stats: dict[str, Any]) -> int:
    return total(stats, "hedges") + total(stats, "explores")
