"""Does the common score find partners better than the cosine? On a frozen model with an image and a text tower.

    python -m experiments.mucmm_retrieval [--seeds 3] [--quick] [--root runs/mucmm_retrieval]
    python -m experiments.mucmm_retrieval --model openai/clip-vit-base-patch32 --data data/NAME [--pair image,text]

The first trains small CLIPs on drawn pictures with captions (experiments/finetuning_photos.py), one per seed; the
second takes any CLIP, SigLIP or CLAP by name or folder, and data with splits train and test. Embeddings of both splits
are made once; codes are fitted on train, and partners are looked for among the test samples, both ways. Test samples
whose text is embedded as that of an earlier one are left out. Compared with the cosine of the embeddings: that of
centered ones; the common score (MUCMM, a reconstruction) in closed form as it is, over both lengths, and weighted by
the correlations; that of heads trained by method=mucmm, linear and MLP (experiments/mucmm_heads.py). How many
directions are common is decided on train by shuffling. Writes table.md; nothing is chosen on test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.finetuning import PRETRAINING, tune
from experiments.finetuning_photos import write_clip, write_domain
from experiments.mucmm_heads import FORMS, leading_components, tensors, train_heads
from experiments.training import cell, markdown
from mmpretrain.evaluation.bootstrap import intervals, mean_of
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.retrieval import pair_places
from mmpretrain.evaluation.similarity import unit_rows
from mmpretrain.explain.decomposition import CodesOrigin, fit, split_codes
from mmpretrain.explain.opened import open_release, usual_device
from mmpretrain.explain.settings import Settings
from mmpretrain.run_folder import RunFolder

COSINE = "cosine"
KS = (1, 10)
SAME = 1 - 1e-5  # a cosine from which on two texts count as one
QUICK = (5, 10)
Sides = tuple[np.ndarray, np.ndarray]  # rows whose products rank partners, [n, w] each
Found = dict[str, dict[str, float]]  # score -> what was measured


def scores_of(
    train: Embeddings, test: Embeddings, pair: tuple[str, str], seed: int, steps: tuple[int, ...] | None
) -> dict[str, Sides]:
    """Every score as rows of both modalities of the test samples. Raises ValueError if nothing is common."""
    fitted = fit(train, pair, Settings(), CodesOrigin.closed_form)
    if not (k := len(fitted.rho)):
        raise ValueError("no direction of these embeddings correlates by more than unrelated data: no common score")
    embeds = [test.embeds[name].astype(np.float64) for name in pair]
    means = [train.embeds[name].mean(axis=0) for name in pair]
    found = {COSINE: _sides(*(unit_rows(rows) for rows in embeds))}
    found["cosine, centered"] = _sides(*(unit_rows(rows - mean) for rows, mean in zip(embeds, means, strict=True)))
    codes = split_codes(fitted, test)
    found |= _common("common score", codes[pair[0]].common, codes[pair[1]].common, fitted.rho)
    kept = min(part.components for part in fitted.parts.values())
    rows = [tensors(split.embeds) for split in leading_components((train, test), pair, kept)]
    common = max(1, min(k, kept - 1))  # heads want a direction for individual codes, too
    for form in (FORMS["linear"], FORMS["mlp"]):
        widths = (common, max(1, kept - common))
        heads = train_heads(rows[0], form, widths, seed, checkpoints=steps)
        trained = heads.codes(rows[1])
        found |= _common(form.title, trained[pair[0]][0], trained[pair[1]][0], heads.rho)
    return found


def _common(title: str, first: Tensor, second: Tensor, rho: Tensor) -> dict[str, Sides]:
    """A common score in its four forms: the weights are split between both sides."""
    weights = rho.double().clamp(min=0).sqrt()
    sides, weighted = [first, second], [first * weights, second * weights]
    lengths = [unit_rows(side.numpy()) for side in sides]
    return {
        title: _sides(*(side.numpy() for side in sides)),
        f"{title}, over lengths": _sides(*lengths),
        f"{title}, weighted": _sides(*(side.numpy() for side in weighted)),
        f"{title}, weighted, over lengths": _sides(*(length * weights.numpy() for length in lengths)),
    }


def _sides(first: np.ndarray, second: np.ndarray) -> Sides:
    return first, second


def measured(sides: Mapping[str, Sides], pair: tuple[str, str]) -> Found:
    """Recall at KS both ways, and its difference from the cosine's with an interval (the same samples drawn again)."""
    outcomes = {title: _outcomes(both, pair) for title, both in sides.items()}
    found: Found = {}
    for title, hits in outcomes.items():
        found[title] = {name: float(values.mean()) for name, values in hits.items()}
        if title != COSINE:
            apart = {f"{name} - cosine": mean_of(values - outcomes[COSINE][name]) for name, values in hits.items()}
            found[title] |= {name: one.value for name, one in apart.items()} | intervals(apart)
    return found


def _outcomes(sides: Sides, pair: tuple[str, str]) -> dict[str, np.ndarray]:
    """``image->text R@1`` and so on: of every query the chance that its partner is among the first; ties are drawn."""
    found: dict[str, np.ndarray] = {}
    for (query, item), (one, two) in ((sides, pair), (sides[::-1], pair[::-1])):
        ahead, tied = pair_places(query, item)
        found |= {f"{one}->{two} R@{k}": np.clip((k - ahead) / tied, 0, 1) for k in KS}
    return found


def distinct(rows: np.ndarray) -> np.ndarray:
    """bool [n]: of rows [n, d] that point the same way, the first."""
    units, kept = unit_rows(rows.astype(np.float64)), np.ones(len(rows), bool)
    for place in range(1, len(rows)):
        earlier = units[:place][kept[:place]]
        kept[place] = not (earlier @ units[place] > SAME).any()
    return kept


def compare(
    model: str, data: str, pair: Sequence[str] | None, seed: int, limit: int, steps: tuple[int, ...] | None
) -> Found:
    """All scores of one model on one data set."""
    opened = open_release(model, data, pair, usual_device())
    train, test = (opened.embed(split, limit) for split in ("train", "test"))
    train, test = (split.only(split.having(opened.pair)) for split in (train, test))
    text = next((name for name, kind in opened.kinds.items() if kind.value == "text"), opened.pair[1])
    test = test.only(distinct(test.embeds[text]))
    found = measured(scores_of(train, test, opened.pair, seed, steps), opened.pair)
    found[COSINE]["samples"] = len(test)
    return found


def table(runs: Sequence[Found]) -> str:
    """Recalls in percent over the models, and the difference from the cosine: of one model with its interval, of
    several with how many intervals lie above and below 0."""
    recalls = [name for name in runs[0][COSINE] if name != "samples"]
    rows = []
    for title in runs[0]:
        row = [title]
        for name in recalls:
            row.append(cell([run[title][name] for run in runs]))
            row.append("" if title == COSINE else _apart([run[title] for run in runs], f"{name} - cosine"))
        rows.append(row)
    header = ["score", *(heading for name in recalls for heading in (name, "- cosine"))]
    counts = ", ".join(f"{run[COSINE]['samples']:.0f}" for run in runs)
    return f"{len(runs)} models; test samples: {counts}. Percent.\n\n" + markdown(header, rows)


def _apart(runs: Sequence[Mapping[str, float]], name: str) -> str:
    if len(runs) == 1:
        return (
            f"{100 * runs[0][name]:+.1f} ({100 * runs[0][f'{name}/low']:+.1f} to {100 * runs[0][f'{name}/high']:+.1f})"
        )
    above, below = sum(run[f"{name}/low"] > 0 for run in runs), sum(run[f"{name}/high"] < 0 for run in runs)
    return f"{100 * np.mean([run[name] for run in runs]):+.1f} ({above} above, {below} below)"


def own_models(root: Path, seeds: Sequence[int], quick: bool) -> list[tuple[Path, Path]]:
    """A small CLIP and its data for each seed, trained if it is missing."""
    data = root / "photos"
    if not data.exists():
        write_domain(data, "photos", **({"train": 400, "validation": 50, "test": 100} if quick else
                                        {"train": 3000, "validation": 200, "test": 1000}))  # fmt: skip
    found = []
    for seed in seeds:
        start = root / f"start-{seed}"
        clip = start if start.exists() else write_clip(start, seed)
        name = f"clip-{seed}"
        tokens = [f"run.root={root}", f"seed={seed}", "engine.threads=1", f"run.name={name}", *PRETRAINING]
        found.append((RunFolder(tune(root, name, clip, data, tokens, 1 if quick else 20)).release, data))
    return found


def main() -> None:
    """Train and measure what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="folder or name of a CLIP, SigLIP or CLAP, or a release; else small CLIPs are trained"
    )
    parser.add_argument("--data", help="with --model: the dataset")
    parser.add_argument("--pair", help="with --model: two modalities of the data, as image,text")
    parser.add_argument("--limit", type=int, default=10_000, help="samples of each split that are looked at")
    parser.add_argument("--seeds", type=int, default=3, help="of the small CLIPs, 0, 1, ...")
    parser.add_argument("--quick", action="store_true", help="a few hundred pictures, a few steps")
    parser.add_argument("--root", type=Path, default=Path("runs/mucmm_retrieval"), help="where everything goes")
    asked = parser.parse_args()
    if bool(asked.model) != bool(asked.data):
        parser.error("--model and --data go together: name both, or neither to train small CLIPs")
    root = asked.root / "quick" if asked.quick else asked.root
    root.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if asked.model:
        pair = asked.pair.split(",") if asked.pair else None
        runs = [compare(asked.model, asked.data, pair, 0, asked.limit, QUICK if asked.quick else None)]
    else:
        models = own_models(root, range(asked.seeds), asked.quick)
        runs = [_remembered(root, seed, *model, asked) for seed, model in enumerate(models)]
    (root / "table.md").write_text(table(runs), encoding="utf-8")
    print(table(runs))


def _remembered(root: Path, seed: int, release: Path, data: Path, asked: argparse.Namespace) -> Found:
    kept = root / f"scores-{seed}.json"
    if not kept.exists():
        steps = QUICK if asked.quick else None
        found = compare(str(release), str(data), None, seed, asked.limit, steps)
        kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
    read: Found = json.loads(kept.read_text(encoding="utf-8"))
    return read


if __name__ == "__main__":
    main()
