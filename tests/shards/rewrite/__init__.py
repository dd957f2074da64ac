"""Data sets made of data sets."""
