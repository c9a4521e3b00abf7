"""The couriers: one coroutine carries one request along its plan, through award, call, failover and settlement."""
