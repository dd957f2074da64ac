"""Fine-tuning by every recipe: what a small CLIP learns of another domain, and what it loses of its own.

python -m experiments.finetuning --out runs/finetuning

A CLIP with random weights learns one drawn domain (photos), then is fine-tuned on another (signs) by each recipe: what
was trained, and its mixture with the start that is best on the validation split; of the recipe full also half of each
(WiSE-FT, arXiv 2109.01903). Writes ``table.md`` there: scores before and after on both domains, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.finetuning_photos import write_clip, write_domain
from experiments.training import ROOT, markdown
from mmpretrain.records import GENERAL, Change, read_changes
from mmpretrain.run_folder import RunFolder, State

RECIPES = ("full", "lora", "head", "lit")
# Of a model this small, whose weights have far to go: several times those of the shipped recipes.
RATES = {"full": 3e-4, "lora": 3e-3, "head": 3e-3, "lit": 1e-3}
MIXTURES = {"": "[]", "half": "[0.5]", "chosen": "[0, 0.2, 0.4, 0.6, 0.8, 1]"}
PRETRAINING = ("optim.lr=1e-3", "evaluation.best.patience=null", "evaluation.release=last")
SCORES = ("retrieval/image->text/recall@1", "zero_shot/image->text/accuracy")


def main() -> None:
    """Draw, pretrain, fine-tune; whatever is complete already stays."""
    asked = _arguments().parse_args()
    out, started = Path(asked.out), time.monotonic()
    photos, signs = _data(out, asked.photos, asked.signs)
    clip = out / "clip" if (out / "clip").exists() else write_clip(out / "clip", asked.seed)
    common = [f"run.root={out}", f"seed={asked.seed}", "engine.threads=1"]
    base = tune(out, "base", clip, photos, [*common, *PRETRAINING, "run.name=base"], asked.pretrain_epochs)
    runs = {}
    for recipe in RECIPES:
        for mixture, shares in MIXTURES.items():
            if mixture == "half" and recipe != "full":
                continue
            name = "-".join(part for part in (recipe, mixture) if part)
            tokens = [f"recipe={recipe}", f"optim.lr={RATES[recipe]}", f"averaging.interpolate={shares}"]
            tokens += [*common, f"run.name={name}", "evaluation.best.patience=null"]
            runs[name] = tune(out, name, base, signs, tokens, asked.epochs, photos)
    table = table_of({name: read_changes(RunFolder(run)) for name, run in runs.items()})
    (out / "table.md").write_text(table, encoding="utf-8")
    print(f"{table}\n{time.monotonic() - started:.0f} s in all")


def table_of(runs: Mapping[str, Sequence[Change]]) -> str:
    """A row per run: both scores before and after on the new domain and on the one that is kept out."""
    header = ["run", *(f"{'kept out' if kept else 'new'}: {score}" for kept in (False, True) for score in SCORES)]
    rows = []
    for name, changes in runs.items():
        known = {change.score: change for change in changes}
        wanted = [prefix + score for prefix in ("", GENERAL) for score in SCORES]
        rows.append([name, *(_cell(known[score]) for score in wanted)])
    return markdown(header, rows)


def _cell(change: Change) -> str:
    text = f"{change.before:.3f} → {change.after:.3f}"
    if change.change_low is None or change.change_high is None:
        return text
    return f"{text} ({change.change_low:+.3f} to {change.change_high:+.3f})"


def _data(out: Path, photos: int, signs: int) -> tuple[Path, Path]:
    counts = {"photos": photos, "signs": signs}
    folders = {name: out / "data" / name for name in counts}
    for name, folder in folders.items():
        if not folder.exists():
            write_domain(folder, name, train=counts[name], validation=200, test=400)
    return folders["photos"], folders["signs"]


def tune(
    out: Path, name: str, model: Path, data: Path, tokens: Sequence[str], epochs: float, general: Path | None = None
) -> Path:
    """One run of ``mmpretrain finetune`` on one process; its folder. A complete one is left as it is."""
    run = RunFolder(out / name)
    if run.status().get("state") != State.completed.value:
        words = [str(model), "--data", str(data), "--epochs", str(epochs), *tokens]
        words += ["--general", str(general)] if general else []
        command = [sys.executable, "-m", "launcher.mmpretrain_command", "finetune", "--cluster=local"]
        subprocess.run([*command, "--gpus-per-node=1", *words], check=True, cwd=ROOT)
    return run.path


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", default="runs/finetuning", help="folder of the runs and the table")
    parser.add_argument("--photos", type=int, default=3000, help="training samples of the first domain")
    parser.add_argument("--signs", type=int, default=300, help="training samples of the second domain")
    parser.add_argument("--pretrain-epochs", type=float, default=20)
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
