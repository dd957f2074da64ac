"""Drivers of whole papers: what is missing is trained through the launcher, then tables stand beside published ones."""
