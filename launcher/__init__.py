"""Plans, submits and follows runs, on this machine or under Slurm; reaches no torch."""
