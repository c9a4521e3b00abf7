"""Storey 2: what decides. Pure: no I/O, no clock, no global chance."""
