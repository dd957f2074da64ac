"""A run at a glance: its picture, its retrieval grid, its summary in the terminal."""
