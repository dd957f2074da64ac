"""M3CoL on ROSMAP against cross-entropy alone, over several seeds, through the launcher.

    mmpretrain shards build omics --name rosmap --source FOLDER
    python -m experiments.rosmap [--seeds 5] [--root runs]

Prints mean and standard deviation over the seeds of three readings of the test scores: the last evaluation, the mean
of the second half of training, and the best evaluation (which selects on the test set). Finished runs are only read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.seeds import seeds_table
from experiments.training import train

VARIANTS: dict[str, list[str]] = {"m3col": [], "cross-entropy only": ["method.weight=0"]}
SCORES = [f"classification/{score}" for score in ("accuracy", "f1", "roc_auc")]


def run(tokens: list[str], seed: int, root: str) -> Path:
    """Train one run; its folder."""
    name = "-".join(["rosmap", *(token.replace("=", "-") for token in tokens), f"seed{seed}"])
    return train(name, ["method=m3col", "experiment=rosmap", *tokens], root, seed)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs per variant, with seeds 0, 1, ...")
    parser.add_argument("--root", default="runs", help="where the run folders go")
    options = parser.parse_args()
    runs = {
        variant: [run(tokens, seed, options.root) for seed in range(options.seeds)]
        for variant, tokens in VARIANTS.items()
    }
    print(seeds_table(runs, SCORES))


if __name__ == "__main__":
    main()
