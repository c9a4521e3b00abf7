"""Storey 3: what runs the actors and touches the world."""
