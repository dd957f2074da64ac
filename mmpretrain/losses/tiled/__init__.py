"""The tiled computation behind losses/contrastive.py: preparation, a forward sweep, a backward sweep."""
