"""The control API of a simulated provider: pure, from method and path to status and plain data."""

import orjson

from runtime.simulation.faults import BadFault, FaultKind, parse_fault
from runtime.simulation.provider import ProviderSimulation


def control(provider: ProviderSimulation, method: str, path: str, body: bytes, now: float) -> tuple[int, dict[str, object]]:
    """Answer a call of the control API; ``path`` is what follows ``/control``. Returns HTTP status and JSON data."""
    match method, path.strip("/").split("/"):
        case "GET", [""]:
            return 200, provider.state(now)
        case "POST", ["faults"]:
            return _switch_on(provider, body, now)
        case "DELETE", ["faults"]:
            provider.faults.switch_off()
            return 200, _faults(provider, now)
        case "DELETE", ["faults", name] if name in list(FaultKind):
            provider.faults.switch_off(FaultKind(name))
            return 200, _faults(provider, now)
        case "DELETE", ["faults", name]:
            return 404, {"errors": [f"there is no fault {name[:50]!r}; there are {', '.join(FaultKind)}"]}
        case "GET", ["requests"]:
            return 200, {"requests": [record.line() for record in provider.journal.records()]}
        case "DELETE", ["requests"]:
            provider.journal.forget()
            return 200, {"requests": []}
    return 404, {"errors": ["see GET /control, POST and DELETE /control/faults, GET and DELETE /control/requests"]}


def _switch_on(provider: ProviderSimulation, body: bytes, now: float) -> tuple[int, dict[str, object]]:
    try:
        provider.switch_on(parse_fault(orjson.loads(body)), now)
    except orjson.JSONDecodeError:
        return 400, {"errors": ["the body is no JSON"]}
    except BadFault as error:
        return 400, {"errors": error.errors}
    return 200, _faults(provider, now)


def _faults(provider: ProviderSimulation, now: float) -> dict[str, object]:
    return {"provider": provider.behaviour.name, "faults": provider.faults.state(now)}
