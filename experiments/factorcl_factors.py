"""FactorCL's factors taken apart, on its synthetic data (Liang et al. 2023, arXiv 2306.05268): what S, U1 and U2 are
worth (as table 4), what they say about the latents by the published probe (table 1), the check of what labels add
(table 11), Cross+Self factorized, and the batch that the critics learn from.

    python -m experiments.factorcl_factors [--seeds 3] [--quick] [--critic-hidden 128] [--parts accuracy,checks]

Runs, folders and data are those of experiments/factorcl_synthetic (label "all" only), and more: factorcl with
critic_batch same and previous, and the self terms alone, whose encoders beside those of SimCLR are Cross+Self
factorized: the two share no weights, so that training both apart is training them together. Writes accuracy.md,
checks.md and information.md; every probe's result is kept in probes.json, and found there the next time. Settings and
lengths are fixed here; nothing is selected by results. --rows, --sides and --latents restrict the information table, of
which a cell takes two to three minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from experiments.factorcl_synthetic import (
    BOTH,
    LATENTS,
    PAPER_INFORMATION,
    MethodVariant,
    SyntheticSetting,
    read_arrays,
    representations,
    variants,
)
from experiments.information import PUBLISHED, Pairs, ProbeSettings, information_curve
from experiments.training import cell, markdown, train_side_by_side
from mmpretrain.evaluation.factor_probes import searched_probe
from mmpretrain.files import replace_text
from shards.latents import SAMPLES

PARTS = ("accuracy", "checks", "information")
SIDES = ("first", "second")
# Table 11: I(X1, Y; X2), I(X1; X2), and the same the other way round, by the published probe.
PAPER_CHECKS = {"first": (12.69, 12.29), "second": (11.31, 10.92)}
QUICK_PROBE = ProbeSettings(epochs=(1, 2), hidden=32, scaled=False)
Arrays = Mapping[str, Mapping[str, np.ndarray]]  # split -> name -> [n, width]


@dataclass
class Probes:
    """Results by name, in a file."""

    path: Path
    settings: ProbeSettings
    known: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.known = json.loads(self.path.read_text())

    def curve(self, name: str, train: Pairs, test: Pairs) -> list[float]:
        """Nats after each of the settings' epochs; from the file if it has them."""
        name = f"{name}, {self.settings.epochs[-1]} epochs at {self.settings.lr:g}"
        if name not in self.known:
            self.known[name] = information_curve(train, test, self.settings)
            replace_text(self.path, json.dumps(self.known, indent=1))
            print(name, " ".join(f"{value:.2f}" for value in self.known[name]), flush=True)
        return self.known[name]


def chosen(critic_hidden: int) -> list[MethodVariant]:
    """The synthetic experiment's variants but CLIP, and those that are here alone."""
    known = [variant for variant in variants(critic_hidden) if variant.name != "clip"]
    alone = ["method=cross_self", "method.temperature=0.07", "method.self_weight=1e6"]
    more = [MethodVariant("self", alone, {BOTH: "self terms alone"})]
    for variant in known:
        if not variant.name.startswith("factorcl"):
            continue
        for batch in ("same", "previous"):
            tokens = [*variant.tokens, f"method.critic_batch={batch}"]
            subjects = {subject: f"{row}, critics on {batch}" for subject, row in variant.subjects.items()}
            more.append(MethodVariant(f"{variant.name}-{batch}", tokens, subjects, variant.supervised))
    return [*known, *more]


def label_of(variant: MethodVariant) -> str | None:
    """What the variant is trained on."""
    return "all" if variant.supervised else None


def factors(found: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """What is probed of one run: S, U1, U2 and all of them, or both encoders; [n, width] each."""
    if "" in found:
        return {"encoders": np.hstack(found[""])}
    shared, (first, second) = np.hstack(found[", shared"]), found[", unique"]
    return {"S": shared, "U1": first, "U2": second, "S+U": np.hstack([shared, first, second])}


def accuracy(train: np.ndarray, test: np.ndarray, known: np.ndarray, truth: np.ndarray) -> float:
    """Share that a logistic regression (C = 1) gets right, on features centered and of one overall deviation of 1."""
    mean, deviation = train.mean(axis=0), max(float((train - train.mean(axis=0)).std()), 1e-12)
    model = LogisticRegression(C=1.0, max_iter=1000).fit((train - mean) / deviation, known)
    return float(model.score((test - mean) / deviation, truth))


def searched(train: np.ndarray, test: np.ndarray, known: np.ndarray, truth: np.ndarray) -> float:
    """Balanced accuracy of the probe of CoMM's released notebook, whose strength is searched."""
    features = [rows.astype(np.float64) for rows in (train, test)]
    return float(balanced_accuracy_score(truth, searched_probe("all", features[0], known)[0].predict(features[1])))


def label(latents: np.ndarray) -> np.ndarray:
    """``all`` of shards/latents.py: whether the mean of all latents is 0 or more."""
    return (latents.mean(axis=1) >= 0).astype(int)


def accuracy_table(runs: Mapping[str, Sequence[Path]], titles: Mapping[str, str], splits: Arrays) -> str:
    """A row per variant and part, mean and deviation over seeds, by either probe."""
    known, truth = (label(splits[split]["latents"]) for split in ("train", "test"))
    scores: dict[str, list[tuple[float, float]]] = {}

    def add(row: str, train: np.ndarray, test: np.ndarray) -> None:
        both = [probe(train, test, known, truth) for probe in (accuracy, searched)]
        scores.setdefault(row, []).append((both[0], both[1]))

    for name, folders in runs.items():
        for run in folders:
            train, test = (factors(representations(run, splits[split])) for split in ("train", "test"))
            for part in train:
                add(f"{titles[name]}, {part}", train[part], test[part])
    for pair in zip(runs.get("simclr", ()), runs.get("self", ()), strict=False):
        sides = [[factors(representations(run, splits[split]))["encoders"] for run in pair] for split in splits]
        add("Cross+Self factorized, encoders", *(np.hstack(parts) for parts in sides))
    rows = [[row, str(len(values)), *map(cell, zip(*values, strict=True))] for row, values in scores.items()]
    return markdown(["representation", "seeds", "accuracy, label all", "balanced accuracy, strength searched"], rows)


def checks_table(probes: Probes, splits: Arrays) -> str:
    """Table 11: what the label adds to what one modality says about the other."""
    rows = []
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        with_label = [
            (np.hstack([arrays[side], np.eye(2, dtype=np.float32)[label(arrays["latents"])]]), arrays[other])
            for arrays in splits.values()
        ]
        plain = [(arrays[side], arrays[other]) for arrays in splits.values()]
        both = probes.curve(f"check/{side}/label", *with_label), probes.curve(f"check/{side}", *plain)
        added = [a - b for a, b in zip(*both, strict=True)]
        names = (f"I({side}, label; {other})", f"I({side}; {other})", "difference")
        published = [*PAPER_CHECKS[side], PAPER_CHECKS[side][0] - PAPER_CHECKS[side][1]]
        for name, curve, theirs in zip(names, (*both, added), published, strict=True):
            rows.append([name, *(f"{value:.2f}" for value in curve), f"{theirs:.2f}"])
    return markdown(["nats", *(f"{epoch} epochs" for epoch in probes.settings.epochs), "published"], rows)


def nats(values: Sequence[float]) -> str:
    """Mean and, of several values, their standard deviation (n - 1)."""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def information_cells(
    runs: Mapping[str, Sequence[Path]], titles: Mapping[str, str], splits: Arrays, options: argparse.Namespace
) -> Iterator[tuple[str, str, str, Pairs, Pairs]]:
    """Row, column, name of a probe, and what it learns from and is asked of."""
    wanted = options.rows.split(",") if options.rows else list(runs)
    for name in (name for name in runs if name in wanted):
        for run in runs[name][: options.probe_seeds]:
            found = {split: representations(run, arrays) for split, arrays in splits.items()}
            for kind in found["train"]:
                for side, number in ((side, SIDES.index(side)) for side in options.sides.split(",")):
                    for latents in options.latents.split(","):
                        pairs = [(found[s][kind][number], splits[s]["latents"][:, LATENTS[latents]]) for s in splits]
                        column = f"I(Z{number + 1}; {latents})"
                        probe = f"{run.name}{kind.replace(', ', '/')}/{side}/{latents}"
                        yield f"{titles[name]}{kind}", column, probe, pairs[0], pairs[1]


def information_table(
    probes: Probes,
    runs: Mapping[str, Sequence[Path]],
    titles: Mapping[str, str],
    splits: Arrays,
    options: argparse.Namespace,
) -> str:
    """A row per representation and cell: means over the probed seeds after each number of epochs."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for row, column, name, train, test in information_cells(runs, titles, splits, options):
        found.setdefault((row, column), []).append(probes.curve(name, train, test))
    rows = [
        [*key, str(len(curves)), *(nats(values) for values in zip(*curves, strict=True))]
        for key, curves in found.items()
    ]
    header = ["representation", "nats", "seeds", *(f"{epoch} epochs" for epoch in probes.settings.epochs)]
    columns = [f"I(Z{number}; {latents})" for number in (1, 2) for latents in LATENTS]
    published = [[row, *text.replace("| ", "").split()] for row, text in PAPER_INFORMATION.items()]
    return markdown(header, rows) + "\nPublished (table 1):\n\n" + markdown(["method", *columns], published)


def main() -> None:
    """Train what is missing, probe, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs per variant, with seeds 0, 1, ...")
    parser.add_argument("--probe-seeds", type=int, default=3, help="of which so many are in the information table")
    parser.add_argument("--quick", action="store_true", help="a thousand samples, a few steps")
    parser.add_argument("--critic-hidden", type=int, default=128, help="hidden units of FactorCL's critics")
    parser.add_argument("--variants", default="", help="names of the variants to train, by commas; default all")
    parser.add_argument("--parts", default=",".join(PARTS), help="which tables")
    parser.add_argument("--rows", default="", help="variants in the information table; default all")
    parser.add_argument("--sides", default="first,second", help="modalities in the information table")
    parser.add_argument("--latents", default=",".join(LATENTS), help="latents in the information table")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    parser.add_argument("--root", type=Path, default=Path("runs/factorcl_synthetic"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    options = parser.parse_args()
    setting = SyntheticSetting(options.root, options.data, SAMPLES, ["all"], options.seeds)
    if options.quick:
        root = options.root / "quick"
        setting = SyntheticSetting(root, root / "data", 1000, ["all"], 1, ("train.samples=1024",))
    wanted = [v for v in chosen(options.critic_hidden) if not options.variants or v.name in options.variants.split(",")]
    jobs = [job for variant in wanted for job in setting.jobs(variant, label_of(variant))]
    train_side_by_side(jobs, setting.root, options.at_once)
    runs = {
        variant.name: [setting.root / job.name for job in setting.jobs(variant, label_of(variant))]
        for variant in wanted
    }
    titles = {variant.name: next(iter(variant.subjects.values())) for variant in wanted}
    splits = {split: read_arrays(setting, split) for split in ("train", "test")}
    probes = Probes(setting.root / "probes.json", QUICK_PROBE if options.quick else PUBLISHED)
    tables = {
        "accuracy": lambda: accuracy_table(runs, titles, splits),
        "checks": lambda: checks_table(probes, splits),
        "information": lambda: information_table(probes, runs, titles, splits, options),
    }
    for part in options.parts.split(","):
        text = tables[part]()
        (setting.root / f"{part}.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
