"""Probes and retrieval on held-out data."""
