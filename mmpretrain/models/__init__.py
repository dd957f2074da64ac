"""Everything that ships with a release: flat modules that import torch, transformers, numpy and one another only."""
