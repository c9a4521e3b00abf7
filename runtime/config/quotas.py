"""Who has limits of their own besides the providers: the names of their quotas, and what these may use."""

from messages.control import ConfigSnapshot
from messages.limits import LimitsSpec


def tenant_quota(tenant: str) -> str:
    """The name of a tenant's quota."""
    return f"tenant:{tenant}"


def pool_quota(model: str) -> str:
    """The name of the quota of a pool, by its public model name."""
    return f"pool:{model}"


def quotas_of(snapshot: ConfigSnapshot) -> dict[str, LimitsSpec]:
    """The limits by name of the quota; tenants and pools without limits have none."""
    found = {tenant_quota(tenant.name): tenant.limits for tenant in snapshot.tenants}
    found |= {pool_quota(pool.model): pool.limits for pool in snapshot.pools}
    return {name: limits for name, limits in found.items() if limits.is_limited}
