"""The strategies by name. A new family is a file of its own and one line here."""

from actors.router.strategies.adaptive import ADAPTIVE
from actors.router.strategies.base import Strategy
from actors.router.strategies.latency import LEAST_LATENCY
from actors.router.strategies.load import LEAST_CONNECTIONS
from actors.router.strategies.order import FIRST, ROUND_ROBIN

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (ADAPTIVE, FIRST, LEAST_CONNECTIONS, LEAST_LATENCY, ROUND_ROBIN)
}
"""What this version can do. Any other name is answered ``strategy_not_found``."""
