"""Data sets made of data sets: other sizes of shards, another order, several in one."""
