"""Every torch-free setting, and its composition: what a run is, before anything heavy is imported."""
