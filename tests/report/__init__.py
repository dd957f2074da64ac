"""Tests of mmpretrain/report/."""
