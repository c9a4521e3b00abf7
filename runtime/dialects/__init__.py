"""Sans-I/O translators of provider APIs: request, answer, stream, error, usage."""
