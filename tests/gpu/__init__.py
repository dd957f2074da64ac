"""What only a CUDA device can show: `make gpu`. Nothing here has run on one yet."""
