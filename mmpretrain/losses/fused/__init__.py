"""One pass over a tile on a GPU, by Triton kernels: the same rules as losses/tiled, without matrices in between."""
