"""Hyper-parameters of the methods, one torch-free file each."""
