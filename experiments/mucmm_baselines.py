"""What training adds over linear canonical correlation, and what maps show without it (MUCMM, a reconstruction).

    python -m experiments.mucmm_baselines [--seeds 3] [--worlds curved rosmap planted] [--quick]

Common and individual codes of the same frozen features by: the closed form (linear canonical correlation); MUCMM's
linear heads; its MLP heads; deep CCA (MLP heads that only maximize correlation); AJIVE. On three worlds:

- *planted images*: features of a CLIP, pretrained here per seed; 9 common and 9 individual dimensions;
- *ROSMAP*: each pair of views, standardized, at most 12 principal components each; 3 and 9 dimensions (skipped, in one
  line, if ROSMAP is not in --data);
- *curved*: the second view holds the absolute values of what is shared, so that no linear map sees it: what heads that
  are not linear can add. 2 and 2 dimensions.

On the planted images also maps (experiments/mucmm_maps.py) by all but AJIVE, by the plain gradient of the cosine, and
with random directions, shuffled pairs and shuffled weights. Seeds, lengths and their choice were fixed before the first
whole run (experiments/mucmm_heads.py). Writes table.md to --root; what is complete is only read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.ajive import ajive
from experiments.mucmm_heads import FORMS, Trained, correlation_sum, leading_components, tensors, train_heads
from experiments.mucmm_maps import Headed, Maps, alike, plain_maps, random_codes, score_maps, shares, shuffled_pairs
from experiments.mucmm_planted import DIMENSIONS, SETTINGS, dataset
from experiments.mucmm_rosmap import VIEWS, read_views, standardized
from experiments.training import TrainingJob, cell, markdown, train_side_by_side
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, fit, split_codes
from mmpretrain.explain.opened import open_release
from mmpretrain.explain.part_probes import part_probes, targets_of
from mmpretrain.explain.sanity import shuffled
from mmpretrain.explain.scores import Codes
from mmpretrain.explain.settings import Settings
from shards.planted import FACTORS, Right

CLOSED, AJIVE, WHOLE = "closed form (linear CCA)", "AJIVE", "features, not split"
ROSMAP, CURVED = (3, 9), (2, 2)
CURVED_SIZES = {"train": 6_000, "test": 1_500}
EXPLAINED = 500
QUICK = (5, 10)
WORLDS = ("curved", "rosmap", "planted")
SUMS = ("fitted", "held out")
Splits = tuple[Embeddings, Embeddings]
Found = dict[str, dict[str, Any]]  # row of a table -> what was measured


@dataclass(frozen=True)
class World:
    """Both splits of a pair; widths: of common and individual codes; factors: what labels are codes of. variance: the
    share of it that is kept."""

    splits: Splits
    pair: tuple[str, str]
    widths: tuple[int, int]
    factors: Mapping[str, int]
    variance: float = 1.0

    @property
    def settings(self) -> Settings:
        """Of the closed form."""
        return replace(SETTINGS, common=self.widths[0], individual=self.widths[1], variance=self.variance)

    def measured(
        self, train: Mapping[str, Codes], test: Mapping[str, Codes], *, individual: bool = True
    ) -> dict[str, Any]:
        """The sum of correlations, fitted and held out, and probes. individual: whether individual codes are meant."""
        known, truth = (targets_of(split.labels, self.factors) for split in self.splits)
        scores = part_probes(train, test, known, truth) if known else []
        wanted = ("common", "individual", "both") if individual else ("common",)
        found: dict[str, Any] = {f"{s.subject}/{s.name}": s.value for s in scores if s.subject in wanted}
        for name, codes in (("fitted", train), ("held out", test)):
            first, second = (codes[name].common for name in self.pair)
            if first.shape == second.shape:
                found[name] = correlation_sum(first, second)
        return found


def compare(world: World, seed: int, checkpoints: Mapping[str, Any]) -> tuple[Found, Decomposition, dict[str, Trained]]:
    """Every way of making codes; the closed form, and trained heads, for maps of them."""
    fitted = fit(world.splits[0], world.pair, world.settings, CodesOrigin.closed_form)
    found = {CLOSED: world.measured(*(split_codes(fitted, split) for split in world.splits))}
    rows, heads = [tensors({name: split.embeds[name] for name in world.pair}) for split in world.splits], {}
    for form in FORMS.values():
        heads[form.title] = trained = train_heads(
            rows[0], form, world.widths, seed, variance=world.variance, **checkpoints
        )
        codes = [{name: Codes(*both) for name, both in trained.codes(split).items()} for split in rows]
        found[form.title] = world.measured(*codes, individual=form.individual) | {"steps": trained.steps}
    ranks = [fitted.parts[name].components for name in world.pair]
    joint = ajive([rows[0][name] for name in world.pair], ranks, *world.widths)
    found[AJIVE] = world.measured(*(_of_ajive(joint.codes([s[n] for n in world.pair]), world.pair) for s in rows))
    found[WHOLE] = _without_split(world)
    return found, fitted, heads


def _without_split(world: World) -> dict[str, Any]:
    """Probes of all features of both sides, as they are."""
    rows = [tensors({name: split.embeds[name] for name in world.pair}) for split in world.splits]
    codes = [{name: Codes(values, values[:, :0]) for name, values in side.items()} for side in rows]
    return {name: value for name, value in world.measured(*codes).items() if name.startswith("both/")}


def _of_ajive(codes: tuple[Tensor, Sequence[Tensor]], pair: tuple[str, str]) -> dict[str, Codes]:
    """The joint code once: it is of both modalities."""
    joint, own = codes
    return {pair[0]: Codes(joint, own[0]), pair[1]: Codes(joint[:, :0], own[1])}


def planted(run: Path, data: Path, seed: int, quick: bool) -> dict[str, Found]:
    """Codes and maps of the planted images, by a CLIP's features."""
    opened = open_release(str(run / "release"), str(data), None, torch.device("cpu"))
    splits = opened.embed("train", 10_000), opened.embed("test", 10_000)
    world = World(splits, opened.pair, (DIMENSIONS, DIMENSIONS), FACTORS, SETTINGS.variance)
    found, fitted, heads = compare(world, seed, _checkpoints(quick))
    explained = 50 if quick else EXPLAINED
    closed = score_maps(opened, fitted, explained)
    maps: dict[str, Maps] = {CLOSED: closed}
    for form in FORMS.values():
        headed = replace(opened, model=Headed(opened.model, heads[form.title].model).eval())
        own = fit(headed.embed("train", 10_000), opened.pair, Settings(), CodesOrigin.model)
        maps[form.title] = _meant(score_maps(headed, own, explained), individual=form.individual)
    maps["cosine; distance from the mean"] = plain_maps(opened, splits[0], explained)
    maps["random directions"] = score_maps(opened, random_codes(fitted, seed), explained)
    wrong = shuffled_pairs(splits[0], opened.pair, world.settings, seed)
    maps["closed form of shuffled pairs"] = score_maps(opened, wrong, explained)
    other = replace(opened, model=shuffled(opened.model, seed).eval())
    maps["shuffled weights, same directions"] = score_maps(other, fitted, explained)
    again = fit(other.embed("train", 10_000), opened.pair, world.settings, CodesOrigin.closed_form)
    maps["shuffled weights, their closed form"] = score_maps(other, again, explained)
    return {"codes": found, "maps": {title: shares(m) | alike(m, closed) for title, m in maps.items()}}


def _meant(maps: Maps, *, individual: bool) -> Maps:
    return {(name, part): values for (name, part), values in maps.items() if individual or part == "common"}


def rosmap(splits: Splits, pair: tuple[str, str], seed: int, quick: bool) -> dict[str, Found]:
    """Codes of a pair of views, by their leading principal components."""
    train, test = leading_components(splits, pair, sum(ROSMAP))
    world = World((train, test), pair, ROSMAP, {})
    return {"codes": compare(world, seed, _checkpoints(quick))[0]}


def curved(seed: int, quick: bool) -> dict[str, Found]:
    """Codes of two views whose relation no linear map sees."""
    splits = [curved_split(seed, number, 400 if quick else size) for number, size in enumerate(CURVED_SIZES.values())]
    return {
        "codes": compare(World((splits[0], splits[1]), ("first", "second"), CURVED, {}), seed, _checkpoints(quick))[0]
    }


def curved_split(seed: int, number: int, size: int) -> Embeddings:
    """Shared z [n, 2] beside two numbers of each view's own, mixed into eight, and a little noise."""
    mix, draw = np.random.default_rng([seed, 2]), np.random.default_rng([seed, number])
    shared, embeds = draw.standard_normal((size, 2)), {}
    for name, seen in (("first", shared), ("second", np.abs(shared))):
        held = np.hstack([seen, draw.standard_normal((size, 2))])
        mixed = held @ mix.standard_normal((4, 8)) + 0.1 * draw.standard_normal((size, 8))
        embeds[name] = mixed.astype(np.float32)
    return Embeddings(np.arange(size), embeds)


def _checkpoints(quick: bool) -> dict[str, Any]:
    return {"checkpoints": QUICK} if quick else {}


def remembered(path: Path, make: Callable[[], dict[str, Found]]) -> dict[str, Found]:
    """What ``path`` holds, or what ``make`` gives, which is kept there."""
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=1), encoding="utf-8")
        print(f"{path.stem} is complete", flush=True)
    kept: dict[str, Found] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def table(title: str, runs: Sequence[Found]) -> str:
    """Mean and deviation over seeds: sums of correlations as they are, all steps, everything else in percent."""
    columns = list(dict.fromkeys(column for run in runs for row in run.values() for column in row))
    rows = []
    for name in runs[0]:
        values = [[run[name][column] for run in runs if column in run[name]] for column in columns]
        rows.append([name, *(_cell(*pair) for pair in zip(columns, values, strict=True))])
    return f"## {title}\n\n{len(runs)} seeds.\n\n" + markdown(["", *columns], rows) + "\n"


def _cell(column: str, values: Sequence[float]) -> str:
    if not values or column not in SUMS:
        return " ".join(str(value) for value in values) if column == "steps" else cell(values)
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


def main() -> None:
    """Train and measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--quick", action="store_true", help="a few hundred pairs, a few steps")
    parser.add_argument("--root", type=Path, default=Path("runs/mucmm_baselines"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS, help="which worlds, by default all")
    options = parser.parse_args()
    root, data, quick = options.root, options.data, options.quick
    omics, seeds = data / "rosmap", range(options.seeds)
    if quick:
        root, data = root / "quick", root / "quick" / "data"
    found: dict[str, list[dict[str, Found]]] = {}
    if "curved" in options.worlds:
        found["curved"] = [remembered(root / f"curved-{s}.json", lambda s=s: curved(s, quick)) for s in seeds]  # type: ignore[misc]
    if "rosmap" in options.worlds:
        found |= _rosmap_seeds(root, omics, seeds, quick)
    if "planted" in options.worlds:
        found["planted"] = _planted_seeds(root, data, seeds, quick)
    text = "".join(
        table(f"{name}: {part}", [one[part] for one in runs]) for name, runs in found.items() for part in runs[0]
    )
    (root / "table.md").write_text(text, encoding="utf-8")
    print(text)


def _rosmap_seeds(root: Path, data: Path, seeds: Sequence[int], quick: bool) -> dict[str, list[dict[str, Found]]]:
    """Every pair of views; nothing without the data."""
    if not (data / "train").is_dir():
        print(f"{data} is missing, so that ROSMAP is left out: mmpretrain shards build omics --name rosmap", flush=True)
        return {}
    views = standardized(*(read_views(data / split) for split in ("train", "test")))
    found = {}
    for pair in combinations(VIEWS, 2):
        name = f"rosmap-{pair[0]}-{pair[1]}"
        found[name] = [
            remembered(root / f"{name}-{s}.json", lambda p=pair, s=s: rosmap(views, p, s, quick))  # type: ignore[misc]
            for s in seeds
        ]
    return found


def _planted_seeds(root: Path, data: Path, seeds: Sequence[int], quick: bool) -> list[dict[str, Found]]:
    """Pretrained here as in experiments/mucmm_planted.py, on one process."""
    few = ["train.samples=1024", "optim.warmup_samples=128"] if quick else []
    pairs, pretraining = (dataset(data, right, quick) for right in (Right.private, Right.shared))
    # Nothing is read of its factors here.
    tokens = ["method=clip", "experiment=planted", "evaluation.factors.search=never", f"data.path={pretraining}", *few]
    runs = train_side_by_side([TrainingJob(f"clip-seed{s}", tokens, s) for s in seeds], root, at_once=1)
    return [
        remembered(root / f"planted-{s}.json", lambda s=s, run=run: planted(run, pairs, s, quick))  # type: ignore[misc]
        for s, run in zip(seeds, runs, strict=True)
    ]


if __name__ == "__main__":
    main()
