"""Builders: one per kind of source, each ends in WebDataset tars, an index per split, and dataset.json."""
