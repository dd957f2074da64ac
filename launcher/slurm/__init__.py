"""What is said to Slurm, and what Slurm says."""
