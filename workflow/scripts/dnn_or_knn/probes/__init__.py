"""Probes: one module per kind."""
