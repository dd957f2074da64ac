"""From a config to the processor, the encoders and the model: what an encoder is made of is asked here, once."""
