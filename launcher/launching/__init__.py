"""From a plan to a job, and from there to its end."""
