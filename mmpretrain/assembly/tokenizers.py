"""Opening tokenizers, and whether they fit their encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from mmpretrain.config.data import DataConfig
from mmpretrain.config.default_model import BYTES
from mmpretrain.config.model import EncoderConfig
from mmpretrain.problems import UnusableError, cannot_open

PROBE = "Two Dogs, 12 caf\u00e9s: un-believable  things!"
LONGEST = 512  # tokens, where neither tokenizer nor model names a limit


def tokenizer_source(encoder: EncoderConfig) -> str | None:
    """Folder or Hub id of the encoder's tokenizer."""
    return encoder.tokenizer or encoder.pretrained


def open_tokenizer(key: str, source: str, revision: str | None, config: PreTrainedConfig | None = None) -> Any:
    """The tokenizer in a folder or on the Hub; key: where the config names it.

    config: of the model there, if it has been opened before; transformers would open it once more.
    Raises UnusableError if it cannot be opened or cannot pad.
    """
    if source == BYTES:
        return byte_tokenizer()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, config=config, revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:  # Damaged files raise whatever their parser raises.
        raise cannot_open(key, source, error) from error
    if tokenizer.pad_token_id is None:
        raise UnusableError([f"{key}: the tokenizer {source!r} has no padding token; choose one that has"])
    return tokenizer


def byte_tokenizer() -> Any:
    """A token for each byte of UTF-8, without any training: for texts of every language, if long ones.

    Ids: 0 padding, 1 beginning, 2 mask, then the 256 bytes, and at last the end, where CLIP's encoders look for it.
    """
    special = {"pad_token": "<pad>", "bos_token": "<s>", "mask_token": "<mask>"}
    tokens = [*special.values(), *sorted(ByteLevel.alphabet()), "</s>"]
    model = BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    ends = [("<s>", 1), ("</s>", len(tokens) - 1)]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", pair=None, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **special)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Equal for tokenizers whose words have the same numbers, and that cut a sentence in the same way, wherever they
    lie and whatever version of their library wrote them."""
    known = [sorted(tokenizer.get_vocab().items()), tokenizer(PROBE)["input_ids"]]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def not_built(data: DataConfig, source: str | None) -> str | None:
    """A note if ``source`` lies in the dataset's folder, which is not built yet; None otherwise."""
    if source is None or not data.build or Path(source).exists():
        return None
    inside = any(Path(path).absolute() in Path(source).absolute().parents for path in data.paths)
    return f"{source} is not built yet: run {data.build}" if inside else None


def vocabulary_size(tokenizer: Any) -> int:
    """Rows that an embedding table needs: the largest token id plus one."""
    return max(tokenizer.get_vocab().values()) + 1


def position_limit(backbone: nn.Module) -> int | None:
    """Longest text that fits the model's table of learned positions; None if it has no such table."""
    for path, module in backbone.named_modules():
        if "position" in path.rpartition(".")[2] and isinstance(module, nn.Embedding):
            # RoBERTa and models like it count positions from behind the padding index.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def text_positions(model: Any) -> int:
    """How many tokens the texts of a model may have that has other towers too."""
    # Beside a text tower there may be positions of image patches.
    limit = position_limit(getattr(model, "text_model", model))
    text = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    return limit or getattr(text, "max_position_embeddings", None) or LONGEST


def text_problems(name: str, backbone: nn.Module, length: int, tokenizer: Any | None) -> list[str]:
    """Whether texts of ``length`` tokens fit the encoder's table of positions, and token ids that of embeddings."""
    found = []
    limit = position_limit(backbone)
    if limit is not None and length > limit:
        found.append(
            f"data.modalities.{name}.max_length is {length}, but the encoder has {limit} positions: shorten the"
            f" texts or set model.encoders.{name}.config.max_position_embeddings"
        )
    if tokenizer is None:
        return found
    rows = backbone.get_input_embeddings().num_embeddings  # type: ignore[operator]
    needed = vocabulary_size(tokenizer)
    if needed > rows:
        found.append(
            f"model.encoders.{name}.config.vocab_size is {rows}, but the tokenizer needs {needed}: leave it out"
            " or use the tokenizer that belongs to the weights"
        )
    return found
