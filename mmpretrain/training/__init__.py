"""One run on one rank, from the start to its release."""
