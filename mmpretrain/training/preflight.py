"""Checks that need torch, run in their own process so that the launcher stays quick:

python -m mmpretrain.preflight CONFIG.yaml RANKS      prints {"problems": [...], "notes": [...]}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.tokenizers import load_tokenizer, not_built, tokenizer_source
from mmpretrain.assembly.training_options import compiler_lacking
from mmpretrain.config.compose import load_config
from mmpretrain.config.data import Kind
from mmpretrain.config.evaluation import Need
from mmpretrain.config.objective import memory_note
from mmpretrain.config.root import Config
from mmpretrain.data.augment.texts import Vocabulary, nothing_masks
from mmpretrain.engine.accumulate import refuse_batch_norms
from mmpretrain.methods import method_class
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel


def main() -> None:
    """Check the model and the method that the config file describes, without allocating weights."""
    config, ranks = load_config(Path(sys.argv[1])), int(sys.argv[2])
    problems, notes, model = check_model(config)
    if model is not None:
        problems = [*_method_problems(config, model), *_evaluation_problems(config, model), *_compiler(config)]
        problems += _masks(config)
        if config.method.contrasts:
            batch, travel = config.data.global_batch, config.method.travel(model.embed_sizes)
            notes.append(memory_note(config.objective, batch, ranks, travel.width, travel.pairs, rings=travel.rings))
    print(json.dumps({"problems": problems, "notes": notes}))


def _method_problems(config: Config, model: MMPretrainModel) -> list[str]:
    try:
        refuse_batch_norms(model.train(), config.engine)
        with torch.device("meta"):
            method_class(config.method.name)(config, model)
    except ValueError as error:
        return [str(error)]
    return []


def _masks(config: Config) -> list[str]:
    """Texts whose tokens are to be masked by a tokenizer that cannot; one that is not built yet is not looked at."""
    found, method = [], config.method
    unique = method.unique_views(list(config.data.modalities))
    for name, modality in config.data.modalities.items():
        views = [modality.unique_view if name in unique else modality.view] if method.augments else []
        masked = any(entry.mask for entry in (*views, modality.train) if entry)
        if modality.kind is not Kind.text or not masked:
            continue
        encoder = config.model.encoders[name]
        pending = not_built(config.data, tokenizer_source(encoder))
        if not pending and Vocabulary.of(load_tokenizer(name, encoder)).mask is None:
            found.append(nothing_masks(name))
    return found


def _compiler(config: Config) -> list[str]:
    lacking = compiler_lacking() if config.objective.compile else None
    return [f"objective.compile=true needs {lacking}"] if lacking else []


def _evaluation_problems(config: Config, model: MMPretrainModel) -> list[str]:
    """What the evaluation needs and the model does not give: it would end a run after all of its training."""
    widths = model.embed_sizes
    if len(set(widths.values())) < 2:
        return []
    advice = "set model.embed_dim, or leave the metric out"
    return config.evaluation.unmet(
        {Need.equal_widths: f"compares embeddings of one width, and these have {widths}: {advice}"}
    )


if __name__ == "__main__":
    main()
