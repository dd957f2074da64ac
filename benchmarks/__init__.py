"""Scripts that measure this project beside others; each runs alone and prints a table, and JSON as its last line."""
