"""A data set as a page to look at, made by the code that trains on it: ``mmpretrain shards preview``."""
