"""Frozen spaces as data: embedding shards (``mmpretrain embed``) and pseudo pairs (``mmpretrain pair``)."""
