"""Simulated providers: one model of behaviour, served over loopback HTTP or run under virtual time."""
