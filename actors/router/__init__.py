"""The router: the actor that decides where a request goes. ``actor`` first; the rest are small types it owns."""
