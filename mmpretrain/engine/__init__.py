"""accelerate and DeepSpeed: build, step, checkpoint."""
