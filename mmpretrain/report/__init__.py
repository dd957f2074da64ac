"""The page of one or several runs: `mmpretrain report` (reads run folders only, and no torch)."""
