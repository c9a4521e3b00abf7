"""The couriers: each carries one request along its plan, through award, call, failover and settlement.

Step by step as it is told (``express``) while all goes well, in a task (``courier``) from where anything must be waited for.
"""
