"""What a rank opens when it starts: every encoder's config and every tokenizer once, and one augmenter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.compose import compose, save_config
from mmpretrain.data.augment import Augmenter
from mmpretrain.hub.export import export_release
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.session import Session
from tests.engine import runs
from tests.hub.test_card import facts
from tests.models.small import BERT
from tests.rank_pool import Ranks
from tests.small_tokenizer import small_tokenizer


def start_and_count(folder: str) -> tuple[dict[str, int], dict[str, int], int]:
    """Start the run in ``folder`` on this rank: how often each config and each tokenizer is opened, and how many
    augmenters are made."""
    configs, tokenizers, augmenters = Counter[str](), Counter[str](), Counter[str]()
    opened_config, opened_tokenizer, made = (
        AutoConfig.from_pretrained,
        AutoTokenizer.from_pretrained,
        Augmenter.__init__,
    )

    def open_config(source: Any, *args: Any, **kwargs: Any) -> Any:
        if (Path(str(source), kwargs.get("subfolder", "")) / "config.json").exists():
            configs[str(source)] += 1
        return opened_config(source, *args, **kwargs)

    def open_tokenizer(source: Any, *args: Any, **kwargs: Any) -> Any:
        tokenizers[f"{source}/{kwargs.get('subfolder', '')}"] += 1
        return opened_tokenizer(source, *args, **kwargs)

    def make(self: Augmenter, *args: Any) -> None:
        augmenters["made"] += 1
        made(self, *args)

    runs.forget_engines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoConfig, "from_pretrained", open_config)
        patch.setattr(AutoTokenizer, "from_pretrained", open_tokenizer)
        patch.setattr(Augmenter, "__init__", make)
        Session(RunFolder(Path(folder)))
    return dict(configs), dict(tokenizers), augmenters["made"]


def test_a_start_opens_every_config_and_tokenizer_once(ranks: Ranks, digits: Path, tmp_path: Path) -> None:
    """Both halves from one release, the caption from a pretrained text model with its tokenizer."""
    release, bert = tmp_path / "release", tmp_path / "bert"
    source = runs.tiny_config("method=clip", "data=digits", f"data.path={digits}")
    model = build_model(source)
    export_release(model, model.state_dict(), build_processor(source), release, facts(method="clip"))
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    BertModel(BertConfig(**BERT, vocab_size=len(tokenizer)), add_pooling_layer=False).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    encoders = {"left": release, "right": release, "caption": bert}
    gone = [f"model.encoders.{name}={{pretrained: {folder}, freeze: true}}" for name, folder in encoders.items()]
    cleared = [f"model.encoders.{name}=null" for name in encoders]
    train = "data.modalities.caption.train={mask: 0.5}"
    config = compose(
        ["method=clip", "experiment=digits", f"data.path={digits}", "model.embed_dim=16", train, *cleared, *gone]
    )
    run = tmp_path / "run"
    run.mkdir()
    save_config(config, run / "config.yaml")
    ((configs, tokenizers, augmenters),) = ranks(1, start_and_count, str(run))
    assert configs == {str(release): 1, str(bert): 1}
    # The release's own caption comes with its processor.
    assert tokenizers == {f"{release}/": 1, f"{bert}/": 1}
    assert augmenters == 1
