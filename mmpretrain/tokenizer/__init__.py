"""Tokenizers made from the texts of a data set: ``mmpretrain tokenizer``."""
