"""What a run will need, before it starts: memory by part, bytes on the wire, checkpoints (docs/prediction.md)."""
