"""Tests of the builders of MultiBench's files."""
