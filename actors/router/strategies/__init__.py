"""The strategies by name. A new family is a file of its own and one line here."""

from actors.router.strategies.adaptive import ADAPTIVE
from actors.router.strategies.base import Strategy
from actors.router.strategies.capability import CAPABILITY
from actors.router.strategies.chance import RANDOM
from actors.router.strategies.cost import COST
from actors.router.strategies.latency import LEAST_LATENCY
from actors.router.strategies.load import LEAST_CONNECTIONS, LEAST_REQUESTS, POWER_OF_TWO
from actors.router.strategies.optimize import OPTIMIZE_COST, OPTIMIZE_LATENCY, OPTIMIZE_RELIABILITY
from actors.router.strategies.order import FIRST, PRIORITY, ROUND_ROBIN
from actors.router.strategies.success import SUCCESS_LATENCY_RATIO, THOMPSON
from actors.router.strategies.weights import SMOOTH_WEIGHTED_ROUND_ROBIN, WEIGHTED, WEIGHTED_RANDOM

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        *(FIRST, PRIORITY, ROUND_ROBIN),
        RANDOM,
        *(WEIGHTED, SMOOTH_WEIGHTED_ROUND_ROBIN, WEIGHTED_RANDOM),
        *(LEAST_CONNECTIONS, LEAST_REQUESTS, POWER_OF_TWO),
        LEAST_LATENCY,
        COST,
        CAPABILITY,
        *(OPTIMIZE_LATENCY, OPTIMIZE_COST, OPTIMIZE_RELIABILITY),
        *(SUCCESS_LATENCY_RATIO, THOMPSON),
        ADAPTIVE,
    )
}
"""What this version can do. Any other name is answered ``strategy_not_found``."""
