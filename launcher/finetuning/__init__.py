"""From a model and data to the plan of its fine-tuning."""
