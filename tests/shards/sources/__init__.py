"""Sources of people's own samples."""
