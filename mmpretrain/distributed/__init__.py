"""Every collective of the project, and none elsewhere."""
