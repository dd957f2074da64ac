"""C-MCR (Wang et al. 2023, arXiv 2305.14381) in a synthetic world of three modalities: are a and c comparable after two
spaces, (a, b) and (b, c), were connected through b alone?

    python -m experiments.cmcr_world [--seeds 2] [--quick]

For every world (seeds 0, 1, ...) it builds the data, trains both spaces by CLIP, embeds corpus and memories (as
`mmpretrain embed` does), finds pseudo partners (`mmpretrain pair`), and connects the spaces in every variant, through
the launcher, two runs side by side. Retrieval of c from a on held-out triples uses what ships: raw a and c through each
release. Beside it stand maps in closed form, and training on true pairs of a and c. table.md and figure.png go to
runs/cmcr_world. Settings and lengths are fixed here; nothing is selected by results. Complete runs are only read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers.utils.logging import disable_progress_bar

from experiments.connecting import UNCONNECTED, closed_forms, embedded, mapped, paired, read, recalls, true_pairs
from experiments.training import TrainingJob, check_dataset, evaluation, markdown, train_side_by_side
from mmpretrain.evaluation.similarity import unit_rows
from mmpretrain.figures import COLORS, INK
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from shards.world import SAMPLES, TEST_SAMPLES, TRIPLES, build_world

SPACES = {"first": ("a", "b"), "second": ("b", "c")}  # space -> the two modalities that it was trained on
MEMORIES = {"first": "a", "second": "c"}
SHARED_ONLY = ["method.partner_weight=0", "method.intra=0"]
# In 64 dimensions the noise of 512 has this variance: its whole squared length is 2.05 in both.
LOUD = "method.noise=0.032"
SUPERVISED = "true pairs of a and c"
VARIANTS: dict[str, Sequence[str]] = {
    "shared rows only, no noise": [*SHARED_ONLY, "method.noise=0"],
    "shared rows only, noise 0.032": [*SHARED_ONLY, LOUD],
    "C-MCR, no noise": ["method.noise=0"],
    "C-MCR": [],
    "C-MCR, noise 0.032": [LOUD],
    "C-MCR, noise 0.032, no pull": [LOUD, "method.intra=0"],
    "C-MCR, noise 0.032, no partners": [LOUD, "method.partner_weight=0"],
    "C-MCR, separate passes": ["method.passes=separate"],
    "C-MCR, half projectors": ["model.projectors.form=half"],
    "C-MCR, first space unprojected": ["model.projectors.unprojected=first"],
    SUPERVISED: [*SHARED_ONLY, "method.noise=0"],
}
# What must be better than what, by how much R@1 at least.
ORDER = [
    (UNCONNECTED, "shared rows only, no noise", 0.3),
    ("shared rows only, no noise", "C-MCR, no noise", 0.05),
    ("C-MCR, no noise", "C-MCR", -0.03),
    ("C-MCR", SUPERVISED, 0.03),
]
Scores = dict[str, list[tuple[float, ...]]]  # row -> (R@1, R@5) of each world


@dataclass(frozen=True)
class WorldSetting:
    """Where everything is, and how much of it. short: training samples of every run, None for all."""

    root: Path
    data: Path
    samples: int = SAMPLES
    test_samples: int = TEST_SAMPLES
    short: int | None = None

    def job(self, name: str, seed: int, *tokens: str) -> TrainingJob:
        """A run of world ``seed``."""
        short = [f"train.samples={self.short}"] if self.short else []
        return TrainingJob(f"{name}-world{seed}", [*tokens, *short], seed)

    def world(self, seed: int) -> Path:
        """The folder of a world's datasets; built if they are missing."""
        path = self.data / f"world{seed}"
        if not check_dataset(path / TRIPLES, {"test": self.test_samples}):
            build_world(path, seed, self.samples, self.test_samples)
        return path

    def release(self, name: str, seed: int) -> Path:
        """Of a run that is complete."""
        return self.root / f"{name}-world{seed}" / "release"

    def embedded(self, data: str, space: str, seed: int) -> Path:
        """A dataset of the world in one of its spaces, as embedding shards; made if they are missing."""
        out = self.root / "embedded" / f"{data}-in-{space}-world{seed}"
        return embedded(out, self.release(space, seed), self.world(seed) / data)

    def pairs(self, seed: int) -> Path:
        """What C-MCR trains on; made if it is missing."""
        corpora = {space: self.embedded("corpus", space, seed) for space in SPACES}
        memories = {space: str(self.embedded(f"memory_{name}", space, seed)) for space, name in MEMORIES.items()}
        return paired(self.root / "embedded" / f"pairs-world{seed}", "b", corpora, memories)

    def true_pairs(self, seed: int) -> Path:
        """True pairs of a and c in the same form, each its own partner."""
        rows = {space: read(self.embedded("ac", space, seed), "train", name) for space, name in MEMORIES.items()}
        return true_pairs(self.root / "embedded" / f"true-pairs-world{seed}", rows, "a and c")

    def connection(self, number: int, row: str, seed: int) -> TrainingJob:
        """The run of one variant."""
        data = self.true_pairs(seed) if row == SUPERVISED else self.pairs(seed)
        releases = [f"method.{space}={self.release(space, seed)}" for space in SPACES]
        tokens = ["experiment=world_connection", f"data.path={data}", *releases, *VARIANTS[row]]
        return self.job(f"variant{number}", seed, *tokens)


def space_job(setting: WorldSetting, space: str, seed: int) -> TrainingJob:
    """Training of one of the two spaces."""
    data = "".join(SPACES[space])
    (unseen,) = set("abc") - set(data)
    without = [f"data.modalities.{unseen}=null", f"model.encoders.{unseen}=null"]
    return setting.job(space, seed, "experiment=world_space", f"data.path={setting.world(seed) / data}", *without)


@torch.no_grad()
def embed(release: Path, rows: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a release makes of raw vectors by modality, unit rows [n, d] each."""
    model = MMPretrainModel.from_pretrained(release).eval()
    embeds = model(**{name: {"values": torch.from_numpy(values)} for name, values in rows.items()}).embeds
    return [unit_rows(embeds[name].numpy()) for name in rows]


def measure(setting: WorldSetting, seed: int) -> dict[str, tuple[float, ...]]:
    """Every row of one world whose runs are complete."""
    world = setting.world(seed)
    raw = {name: read(world / TRIPLES, "test", name) for name in "ac"}
    inner = {s: embed(setting.release(s, seed), {name: raw[name]})[0] for s, name in MEMORIES.items()}
    maps = closed_forms(setting.pairs(seed))
    found = {name: recalls(mapped(inner["first"], matrix), inner["second"]) for name, matrix in maps.items()}
    for number, row in enumerate(VARIANTS):
        a, c = embed(setting.release(f"variant{number}", seed), raw)
        found[row] = recalls(a, c)
    return found


def broken(scores: Scores) -> list[str]:
    """Which of the expected differences are not there, one sentence each."""
    return [
        f"world {seed}: {better!r} has R@1 {high[0]:.3f}, {worse!r} {low[0]:.3f}: at least {margin:+.2f} was expected"
        for worse, better, margin in ORDER
        for seed, (low, high) in enumerate(zip(scores[worse], scores[better], strict=True))
        if high[0] - low[0] < margin
    ]


def table(scores: Scores, within: Sequence[str], setting: WorldSetting) -> str:
    """R@1 and R@5 of every world."""
    worlds = range(len(within))
    header = ["", *(f"{score}, world {seed}" for score in ("R@1", "R@5") for seed in worlds)]
    rows = [[row, *(f"{world[i]:.3f}" for i in (0, 1) for world in found)] for row, found in scores.items()]
    text = f"Retrieval of c from a among {setting.test_samples} held-out triples.\n\n{markdown(header, rows)}\n"
    return text + "".join(f"World {seed}, within its spaces: {line}.\n" for seed, line in enumerate(within))


def within_spaces(setting: WorldSetting, seed: int) -> str:
    """R@1 of both spaces on their own modalities, which no connection can be expected to exceed."""
    scores = {s: evaluation(setting.release(s, seed).parent) for s in SPACES}
    return ", ".join(
        f"{x} to {y} R@1 {scores[space][f'retrieval/{x}->{y}/recall@1']:.3f}" for space, (x, y) in SPACES.items()
    )


def figure(scores: Scores) -> Figure:
    """A bar per row, a point per world."""
    drawn = Figure(figsize=(8, 5.2), facecolor="white", layout="constrained")
    axes = drawn.subplots()
    for place, (row, found) in enumerate(reversed(scores.items())):
        values = [100 * first for first, _ in found]
        axes.barh(place, np.mean(values), 0.7, color=COLORS[0] if row in VARIANTS else COLORS[5])
        axes.plot(values, np.full(len(values), place), ".", color=INK, markersize=5)
    axes.set_yticks(range(len(scores)), list(reversed(scores)))
    axes.set_xlabel("R@1 of c from a in percent")
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def main() -> None:
    """Build and train what is missing, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="worlds 0, 1, ...")
    parser.add_argument("--quick", action="store_true", help="one world, 1500 samples, a few steps, no claims")
    parser.add_argument("--root", type=Path, default=Path("runs/cmcr_world"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    options = parser.parse_args()
    disable_progress_bar()
    setting, seeds = WorldSetting(options.root, options.data), range(options.seeds)
    if options.quick:
        root = options.root / "quick"
        setting, seeds = WorldSetting(root, root / "data", samples=1500, test_samples=200, short=4096), range(1)
    train_side_by_side([space_job(setting, space, seed) for seed in seeds for space in SPACES], setting.root)
    jobs = [setting.connection(number, row, seed) for seed in seeds for number, row in enumerate(VARIANTS)]
    train_side_by_side(jobs, setting.root)
    measured = [measure(setting, seed) for seed in seeds]
    scores: Scores = {row: [found[row] for found in measured] for row in measured[0]}
    within = [within_spaces(setting, seed) for seed in seeds]
    (setting.root / "table.md").write_text(table(scores, within, setting))
    figure(scores).savefig(setting.root / "figure.png", dpi=140)
    print((setting.root / "table.md").read_text())
    if not options.quick and (problems := broken(scores)):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
