"""Runs as they stand: listed, shown, compared, resumed, cancelled, cleaned."""
