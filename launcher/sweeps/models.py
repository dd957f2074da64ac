"""The models of many runs, checked in one process: torch is imported once, and equal models are looked at once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from launcher.planning.checks import PREFLIGHT_TIMEOUT_S, Findings, own_process
from launcher.planning.plan import Draft
from launcher.planning.predicted import device_words
from launcher.planning.resources import Purpose
from mmpretrain.config.compose import config_text
from mmpretrain.words import shortened

EACH_S = 60  # seconds more for each further model


def check_models(drafts: Sequence[Draft], purpose: Purpose) -> list[Findings]:
    """What :func:`launcher.planning.checks.check_model` says of each draft."""
    texts = [_text(draft) for draft in drafts]
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    resources = drafts[0].resources
    checked = _checked(distinct, resources.world_size, device_words(resources), purpose)
    found = dict(zip(distinct, checked, strict=True))
    return [found[text] for text in texts]


def _text(draft: Draft) -> tuple[str, bool]:
    """The config without what no check of a model reads, and whether it is the run's first start."""
    config = deepcopy(draft.config)
    config.run.name = config.run.root = "any"
    config.seed, config.optim.lr, config.optim.weight_decay = 0, 1.0, 0.0
    return config_text(config), draft.history.step is None


def _checked(
    configs: Sequence[tuple[str, bool]], ranks: int, devices: Sequence[str], purpose: Purpose
) -> list[Findings]:
    with tempfile.TemporaryDirectory() as folder:
        words = []
        for number, (text, starts) in enumerate(configs):
            path = Path(folder) / f"{number}.yaml"
            path.write_text(text, encoding="utf-8")
            words += [str(path) if starts else f"{path}:again"]
        limit = PREFLIGHT_TIMEOUT_S + EACH_S * (len(configs) - 1)
        done = own_process("mmpretrain.training.preflight_many", str(ranks), *words, *devices, timeout_s=limit)
    if done is None:
        return [Findings(problems=(f"the check of the models did not end within {limit} s",))] * len(configs)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"problems"')]
    if done.returncode == 0 and len(answers) == len(configs):
        found = [Findings(tuple(answer["problems"]), tuple(answer["notes"])) for answer in answers]
        for line in done.stdout.splitlines():
            if line.startswith('{"largest"'):
                told = json.loads(line)
                of = found[told["largest"]]
                found[told["largest"]] = replace(of, notes=(*of.notes, *told["notes"]), prediction=told["prediction"])
        return found
    cause = shortened((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    if purpose is Purpose.show and cause.startswith("ModuleNotFoundError: No module named 'torch'"):
        note = "the models were not checked: torch is not installed (run `make install`)"
        return [Findings(notes=(note,))] * len(configs)
    return [Findings(problems=(f"the check of the models failed: {cause}",))] * len(configs)
