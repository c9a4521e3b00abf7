"""Storey 0: the words the actors speak. Stdlib and msgpack only; facts, never behaviour, never a secret."""
