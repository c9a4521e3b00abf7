"""Strategies: pure functions that rank bids, one file per family."""
