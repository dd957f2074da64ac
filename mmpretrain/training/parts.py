"""What a release holds beside weights, kept in the run's folder so that any checkpoint can become a release.

A run's data, tokenizers and pretrained encoders may be out of reach, or others, when a checkpoint is exported.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mmpretrain.data.info import DatasetInfo
from mmpretrain.files import replace_text
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, one_line

FACTS = "facts.json"


@dataclass(frozen=True)
class Parts:
    """The model's config, its processor, what the data says of itself (None: nothing), and the run's hardware."""

    config: MMPretrainConfig
    processor: MMPretrainProcessor
    info: DatasetInfo | None
    hardware: str | None


def write_parts(folder: Path, parts: Parts) -> None:
    """Write them; the facts come last, so that what is half written is not taken for whole."""
    shutil.rmtree(folder, ignore_errors=True)
    parts.config.save_pretrained(folder)
    parts.processor.save_pretrained(folder)
    facts = {"hardware": parts.hardware, "dataset": asdict(parts.info) if parts.info else None}
    replace_text(folder / FACTS, json.dumps(facts, indent=1, ensure_ascii=False))


def read_parts(folder: Path) -> Parts | None:
    """What :func:`write_parts` wrote; None where it did not come to its end. Raises UnusableError for damage."""
    if not (folder / FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        info = DatasetInfo(**facts["dataset"]) if facts["dataset"] else None
        config, processor = MMPretrainConfig.from_pretrained(folder), MMPretrainProcessor.from_pretrained(folder)
    except Exception as error:  # a damaged file raises whatever its parser raises
        raise UnusableError(
            [f"{folder} is damaged ({one_line(error)}): remove it, and the config of the run is asked instead"]
        ) from error
    return Parts(config, processor, info, facts["hardware"])
