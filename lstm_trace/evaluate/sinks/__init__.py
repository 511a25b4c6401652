"""Scores as a backend's own annotations, beside OTLP: one file a backend, each in its extra, all of them span exporters."""
