"""Where people's own samples come from: folders, tables, and what `datasets` saved."""
