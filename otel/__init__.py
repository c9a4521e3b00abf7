"""Storey 1: tracing. The only place that imports OpenTelemetry."""
