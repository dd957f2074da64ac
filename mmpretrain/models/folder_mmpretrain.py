"""The processor's files in a release: one config, and tokenizers and feature extractors where Auto classes look."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file

from .feature_extraction_mmpretrain import MMPretrainFeatureExtractor, opened_extractor
from .image_processing_mmpretrain import MMPretrainImageProcessor
from .inputs_mmpretrain import KINDS

FILE_NAME = "processor_config.json"
TOKENIZER_FILE = "tokenizer_config.json"
# Keys of the config under which AutoImageProcessor and AutoFeatureExtractor look, and the modality of the tokenizer
# that lies where AutoTokenizer looks. Releases before 0.2 have none of them: theirs lie in folders only.
IMAGE, SOUND, AT_ROOT = "image_processor", "feature_extractor", "tokenizer_of"
HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only")

Entries = Mapping[str, dict[str, Any]]


def config_of(name: str, modalities: Entries, readers: Mapping[str, Any]) -> dict[str, Any]:
    """What FILE_NAME holds of a processor whose class is called ``name``; readers: modality -> its tokenizer or feature
    extractor."""
    content: dict[str, Any] = {"processor_class": name, "modalities": dict(modalities)}
    if (text := first(modalities, "text")) is not None:
        content[AT_ROOT] = text
    if (image := first(modalities, "image")) is not None:
        content[IMAGE] = MMPretrainImageProcessor.of(image, modalities[image]).to_dict()
    if (sound := first(modalities, "audio")) is not None:
        content[SOUND] = MMPretrainFeatureExtractor(sound, modalities[sound], readers.get(sound)).to_dict()
    return content


def first(modalities: Entries, kind: str) -> str | None:
    """The first modality of a kind."""
    return next((name for name, entry in modalities.items() if entry["kind"] == kind), None)


def saved(processor: Any, folder: Path, readers: Mapping[str, Any]) -> list[str]:
    """Write the config, the readers and the code files of a processor; returns the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    modalities = processor.modalities
    content = config_of(type(processor).__name__, modalities, readers)
    files = [str(path) for path in custom_object_save(processor, folder, config=content) or []]
    for key, form in ((IMAGE, MMPretrainImageProcessor), (SOUND, MMPretrainFeatureExtractor)):
        if key in content:
            module = form.__module__.rsplit(".", 1)[-1]
            content[key]["auto_map"] = {form._auto_class: f"{module}.{form.__name__}"}
    for name, reader in readers.items():
        if modalities[name]["kind"] == "text":
            files += _saved_tokenizer(reader, folder, name, modalities[name], content.get(AT_ROOT) == name)
        elif name != first(modalities, "audio"):
            files += reader.save_pretrained(folder / folder_of(name, modalities[name]))
    (folder / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return [*files, str(folder / FILE_NAME)]


def opened(source: str, subfolder: str = "", **hub: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The modalities, tokenizers and feature extractors of a folder or Hub repository.

    hub: some of HUB_ARGUMENTS. Code that a folder names is never run. Raises OSError if there are no processor files,
    and ValueError for those of something else.
    """
    path = cached_file(source, FILE_NAME, subfolder=subfolder, **hub)
    content = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    modalities = content.get("modalities") if isinstance(content, dict) else None
    if not isinstance(modalities, dict) or not all(isinstance(e, dict) and "kind" in e for e in modalities.values()):
        raise ValueError(f"{FILE_NAME} of {source} has no modalities: it is not the processor of a release")
    _check_names(modalities)
    tokenizers, extractors = {}, {}
    for name, entry in modalities.items():
        inside = os.path.join(subfolder, folder_of(name, entry)) if entry["kind"] in ("text", "audio") else ""
        if entry["kind"] == "text":
            inside = subfolder if content.get(AT_ROOT) == name else inside
            tokenizers[name] = _opened_tokenizer(source, inside, hub)
        elif entry["kind"] == "audio" and name == first(modalities, "audio") and SOUND in content:
            inner = content[SOUND].get("extractor")
            if inner is not None:
                extractors[name] = opened_extractor(name, inner)
        elif entry["kind"] == "audio" and not entry.get("waveform"):
            extractors[name] = AutoFeatureExtractor.from_pretrained(
                source, subfolder=inside, trust_remote_code=False, **hub
            )
    return modalities, tokenizers, extractors


def folder_of(name: str, modality: Mapping[str, Any]) -> str:
    """Where a release keeps the tokenizer or feature extractor of a modality, unless it is the first of its kind."""
    return f"{KINDS[modality['kind']].folder}_{name}"


def _saved_tokenizer(tokenizer: Any, folder: Path, name: str, entry: Mapping[str, Any], at_root: bool) -> list[str]:
    """As AutoTokenizer opens it, it cuts, pads and names its tensors as the processor does."""
    place = folder if at_root else folder / folder_of(name, entry)
    files = [str(path) for path in tokenizer.save_pretrained(place) if Path(path).exists()]
    path = place / TOKENIZER_FILE
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("auto_map", None)
    settings |= {"model_max_length": entry["max_length"], "padding_side": "right"}
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


def _opened_tokenizer(source: str, inside: str, hub: Mapping[str, Any]) -> Any:
    # An empty config: that of the model has nothing to say here, and might name code. Without the flag transformers
    # would ask on the terminal whether to run code that the folder names.
    config = PreTrainedConfig()
    return AutoTokenizer.from_pretrained(source, subfolder=inside, config=config, trust_remote_code=False, **hub)


def _check_names(modalities: Entries) -> None:
    """Names become names of folders: they must not lead elsewhere."""
    for name in modalities:
        if not name or any(sign in name for sign in "/\\\0"):
            raise ValueError(f"modality {name!r}: its name cannot be that of a folder")
