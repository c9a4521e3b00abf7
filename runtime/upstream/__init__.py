"""Calls to providers, and the one door through which foreign errors become ``Failure`` values."""
