"""What runs on every rank of a job, and beside it."""
