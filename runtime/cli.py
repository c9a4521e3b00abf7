"""The command line. Exit codes: 0 well, 1 failed, 2 wrong usage.

What only some commands need is imported by them: loading it takes longer than most commands do.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
from cyclopts import App, CycloptsError, Parameter

from otel.setup import BadTelemetry
from runtime import logs
from runtime.config.checks import exposure
from runtime.config.describe import describe, overview
from runtime.config.environment import from_environment
from runtime.config.loading import load_file
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.schema import json_schema
from runtime.config.settings import Loaded
from runtime.config.tls import BadTls
from runtime.health_commands import health, probe, reset
from runtime.system import dispatcher

log = logging.getLogger("pointsman")

EXIT_FAILED = 1
EXIT_USAGE = 2
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _version() -> str:
    return installed_version("pointsman")


def _version_and_build() -> str:
    return _version() + ("" if (dispatcher.__file__ or ".py").endswith(".py") else " (compiled)")


app = App(name="pointsman", help="An LLM gateway that chooses well and can tell why.", version=_version_and_build)

for _command in (health, probe, reset):
    app.command(_command)

ConfigPath = Annotated[Path | None, Parameter(name=["--config", "-c"], help="The configuration, a YAML file.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


class Failed(Exception):
    """The command cannot go on; the message says why."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


def main() -> NoReturn:
    """Run the command of ``sys.argv`` and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"pointsman: {error}", file=sys.stderr)
        return EXIT_USAGE
    except Failed as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


@app.command
def serve(*, config: ConfigPath = None, host: str | None = None, port: int | None = None) -> int:
    """Run the gateway. Without a file: with the providers found in the environment.

    SIGTERM or SIGINT: stop accepting, finish calls in flight up to server.drain, exit 0; a second signal stops at once.
    SIGHUP, or a change of the file: put it in force as it is now, whole or not at all.

    Parameters
    ----------
    host
        Listen here instead of at server.host.
    port
        Listen here instead of at server.port; 0 takes a free one.
    """
    from runtime.daemon import Daemon

    loaded = _listening_at(_load(config), host, port)
    logs.configure(_secrets(loaded), _log_level())
    for note in loaded.notes:
        log.warning("%s", note)
    try:
        # A pipe has told all it has, and would hold up who reads it again.
        anew = partial(load_file, config, os.environ) if config is not None and config.is_file() else None
        return _run_loop(Daemon(loaded, os.environ, _version(), anew).run())
    except ConfigError as error:
        raise Failed(error.text()) from error
    except BadTelemetry as error:
        raise Failed(f"telemetry: {error}") from error
    except BadTls as error:
        raise Failed(str(error)) from error
    except OSError as error:
        raise Failed(f"cannot listen on {loaded.server.host}:{loaded.server.port}: {error.strerror or error}") from error


@app.command
def demo(*, host: str = "127.0.0.1", port: int = 8080) -> int:
    """Run three simulated providers and the gateway in front of them, on this machine only.

    Parameters
    ----------
    host
        Where the gateway listens.
    port
        Its port; 0 takes a free one.
    """
    from runtime.demo import run_demo

    _check_port(port)
    logs.configure((), _log_level("WARNING"))
    try:
        return _run_loop(run_demo(host, port, os.environ, _version()))
    except ConfigError as error:
        raise Failed(error.text()) from error
    except BadTelemetry as error:
        raise Failed(f"telemetry: {error}") from error
    except OSError as error:
        raise Failed(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


@app.command
def check(*, config: ConfigPath = None, schema: Annotated[bool, Parameter(negative=())] = False, json: AsJson = False) -> int:
    """Validate a configuration: every error at once, with its path in the file and its line.

    Parameters
    ----------
    schema
        Print the JSON Schema of the file for editors instead.
    """
    if schema:
        print(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2).decode())
        return 0
    try:
        loaded = _loaded(config)
    except ConfigError as error:
        return _invalid(error, json)
    if json:
        print(orjson.dumps({"ok": True, **overview(loaded)}, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(describe(loaded)))
    return 0


def _invalid(error: ConfigError, json: bool) -> int:
    """Tell every error of a configuration. Raises ``Failed``, unless JSON is wanted."""
    if json:
        print(orjson.dumps({"ok": False, "errors": [_problem(one) for one in error.problems]}).decode())
        return EXIT_FAILED
    count = len(error.problems)
    raise Failed(f"{error.text()}\n{count} error{'s' if count != 1 else ''}") from error


def _problem(problem: ConfigProblem) -> dict[str, Any]:
    return {"path": problem.path, "line": problem.line, "message": problem.message}


@app.command
def explain(
    model: str,
    *,
    config: ConfigPath = None,
    url: str | None = None,
    prompt_tokens: int = 0,
    max_tokens: int | None = None,
    tools: Annotated[bool, Parameter(negative=())] = False,
    vision: Annotated[bool, Parameter(negative=())] = False,
    stream: Annotated[bool, Parameter(negative=())] = False,
    tenant: str | None = None,
    strategy: str | None = None,
    header: tuple[str, ...] = (),
    label: tuple[str, ...] = (),
    json: AsJson = False,
) -> int:
    """Dry-run a decision: every provider, its score or why it was left out, the winner and the fall-back chain.

    From a file alone idle providers are assumed; with --url a live daemon is asked, with the key in POINTSMAN_ADMIN_KEY.

    Parameters
    ----------
    model
        The name a client would ask for.
    url
        Address of a live daemon, such as http://127.0.0.1:8080.
    prompt_tokens
        Length of the prompt in tokens.
    max_tokens
        The request's limit of output tokens.
    tools
        The request has tools.
    vision
        The request has pictures.
    stream
        The request asks for a stream.
    tenant
        The tenant that asks.
    strategy
        Another strategy than the configured one.
    header
        More request headers, as x-pointsman-exclude=name. May be given several times.
    label
        A label of the caller's key, as tier=free: pool rules look at them. May be given several times.
    """
    from runtime import explain as explaining
    from runtime import explain_table

    if url is not None and config is not None:
        raise Failed("pointsman: give --config or --url, not both", EXIT_USAGE)
    question: dict[str, Any] = {"model": model, "prompt_tokens": prompt_tokens, "tools": tools, "vision": vision}
    question |= {"stream": stream, "headers": _pairs("--header", header), "labels": _pairs("--label", label)}
    given = (("max_tokens", max_tokens), ("tenant", tenant), ("strategy", strategy))
    question |= {name: value for name, value in given if value is not None}
    try:
        if url is not None:
            decision = explaining.from_daemon(url, question, os.environ.get("POINTSMAN_ADMIN_KEY", ""))
        else:
            logs.configure((), "ERROR")
            decision = asyncio.run(explaining.from_configuration(_loaded(config), question))
    except ConfigError as error:
        return _invalid(error, json)
    except explaining.CannotExplain as error:
        raise (Failed(f"pointsman: {error}", EXIT_USAGE) if error.is_usage else Failed(str(error))) from error
    if json:
        print(orjson.dumps(decision, option=orjson.OPT_INDENT_2).decode())
    else:
        explain_table.show(decision, explain_table.console())
    return EXIT_FAILED if decision.get("error") else 0


@app.command
def simulate(scenario: Path, *, config: ConfigPath = None, seed: int | None = None, json: AsJson = False) -> int:
    """Play a scenario with your configuration under virtual time: success, latency, cost and share by provider.

    No provider is called and no key leaves this machine; docs/simulation.md describes the scenario file.

    Parameters
    ----------
    scenario
        The scenario, a YAML file: load, providers' behaviour, faults.
    seed
        Another seed than the scenario's; the same seed gives the same table.
    """
    from runtime.explain_table import console
    from runtime.simulation import report_table
    from runtime.simulation.play import play
    from runtime.simulation.scenario import load_scenario

    if seed is not None and seed < 0:
        raise Failed("pointsman: --seed must be 0 or more", EXIT_USAGE)
    logs.configure((), "ERROR")
    try:
        loaded = _loaded(config)
        played = load_scenario(scenario, loaded.snapshot, os.environ)
        report = play(loaded, played if seed is None else played.model_copy(update={"seed": seed}))
    except ConfigError as error:
        return _invalid(error, json)
    if json:
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        report_table.show(report, console())
    return EXIT_FAILED if report["fatal"] else 0


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Pairs of ``name=value``. One given twice is wrong usage: which was meant cannot be told."""
    pairs: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise Failed(f"pointsman: {option} takes name=value, not {text!r}", EXIT_USAGE)
        if name in pairs:
            raise Failed(f"pointsman: {option} {name} is given more than once", EXIT_USAGE)
        pairs[name] = value
    return pairs


def _loaded(config: Path | None) -> Loaded:
    return load_file(config, os.environ) if config is not None else from_environment(os.environ)


def _load(config: Path | None) -> Loaded:
    try:
        return _loaded(config)
    except ConfigError as error:
        raise Failed(error.text()) from error


def _listening_at(loaded: Loaded, host: str | None, port: int | None) -> Loaded:
    if port is not None:
        _check_port(port)
    server = replace(loaded.server, host=host or loaded.server.host, port=port if port is not None else loaded.server.port)
    problem = exposure(server.host, server.allow_anonymous)
    if problem is not None:
        raise Failed(f"--host: {problem}")
    given = frozenset(name for name, value in (("host", host), ("port", port)) if value is not None)
    return replace(loaded, server=server, given=given)


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise Failed(f"pointsman: --port must be from 0 to 65535, not {port}", EXIT_USAGE)


def _secrets(loaded: Loaded) -> list[str]:
    """Every secret of the configuration, for the log to leave out."""
    found = [value for credential in loaded.credentials.values() for _, value in credential.headers]
    found += [c.api_key.get_secret_value() for c in loaded.credentials.values() if c.api_key is not None]
    if loaded.server.admin_key is not None:
        found.append(loaded.server.admin_key.get_secret_value())
    return found


def _log_level(default: str = "INFO") -> str:
    level = os.environ.get("POINTSMAN_LOG_LEVEL", default).upper()
    if level not in LOG_LEVELS:
        raise Failed(f"pointsman: POINTSMAN_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}", EXIT_USAGE)
    return level


def _run_loop(running: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(running)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(running)
