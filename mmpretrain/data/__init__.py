"""The stream: index -> plan -> reader -> decode -> Batch."""
