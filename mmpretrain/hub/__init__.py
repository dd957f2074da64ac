"""From a trained model to a release folder that AutoModel opens."""
