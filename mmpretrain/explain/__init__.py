"""What two modalities of a release share and what is each one's own, as scores, tables and pictures."""
