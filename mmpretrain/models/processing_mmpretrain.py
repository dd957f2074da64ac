"""The processor that ships: images, texts, vectors, sequences and sounds -> tensors for the encoders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoTokenizer
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file

from .audio_mmpretrain import with_rates
from .images_mmpretrain import check_entry
from .inputs_mmpretrain import KINDS, mark_absent, optional_samples

FILE_NAME = "processor_config.json"
HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only")


class MMPretrainInputs(dict[str, dict[str, Tensor]]):
    """Modality -> keyword tensors of its encoder; ``model(**inputs)`` takes it."""

    def to(self, device: torch.device | str) -> MMPretrainInputs:
        """The same inputs on ``device``."""
        return MMPretrainInputs({m: {k: t.to(device) for k, t in tensors.items()} for m, tensors in self.items()})


class MMPretrainProcessor:
    """``processor(left=[image, ...], caption=["a seven", ...])`` -> inputs of :class:`MMPretrainModel`.

    modalities: name -> ``{"kind": "image", "size": [height, width], "channels": 1 or 3}`` (optional ``mean`` and
    ``std`` per channel, default 0.5, and ``resize``, ``resample``, ``shortest_edge`` and ``background``: see
    :func:`fitted`),
    ``{"kind": "text", "max_length": n}``, ``{"kind": "vector", "size": [d]}`` (optional ``minimum`` and ``maximum`` per
    feature, which scale the training data to 0...1), ``{"kind": "sequence", "size": [time steps, d]}``, or
    ``{"kind": "audio", "sampling_rate": hertz, "seconds": s}``. With ``"optional": True`` samples of it may be None,
    and its tensors include ``present``. Texts and sequences with ``"pad_to_multiple_of": k`` are padded to the longest
    of a call, rounded up, otherwise to their full length (see :func:`padded_length`).
    tokenizers: name -> transformers tokenizer, for every text. feature_extractors: the same for every sound.

    Raises ValueError if a text has no tokenizer or a sound no feature extractor, if statistics do not have one number
    per channel or feature, if ``shortest_edge`` is below ``size`` or without a crop, and for an unknown way to resize
    or background.
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        modalities: dict[str, dict[str, Any]],
        tokenizers: dict[str, Any] | None = None,
        feature_extractors: dict[str, Any] | None = None,
    ) -> None:
        self.modalities = modalities
        self.tokenizers = tokenizers or {}
        self.feature_extractors = feature_extractors or {}
        for name, modality in modalities.items():
            if modality["kind"] == "text" and name not in self.tokenizers:
                raise ValueError(f"modality {name!r} is a text, but no tokenizer was given for it")
            if modality["kind"] == "audio" and not modality.get("waveform") and self.reader(name) is None:
                raise ValueError(f"modality {name!r} is audio, but no feature extractor was given for it")
            _check_statistics(name, modality)

    # Any: beside it stand keywords of every type.
    def __call__(self, /, *, sampling_rate: Any = None, **samples: Any) -> MMPretrainInputs:
        """Turn samples into tensors: modality -> one sample or a list of b.

        Images are PIL images, texts strings, vectors and sequences arrays, sounds arrays of one channel with their
        ``sampling_rate`` (hertz), or ``{"array": ..., "sampling_rate": ...}`` each. Returns what the model takes.
        Raises ValueError for an unknown modality, a sample of the wrong type or length, or a sound of unknown rate.
        """
        return self.finished(self.encoded(sampling_rate=sampling_rate, **samples))

    def encoded(self, /, *, sampling_rate: Any = None, **samples: Any) -> MMPretrainInputs:
        """The first half of a call, which loader processes do: what is small to hand over.

        Images are ``pixels`` uint8 [b, height, width, channels], which no encoder takes; all else is finished.
        Arguments and errors as of a call; images may be :class:`Pictures`, too.
        """
        if not samples:
            raise ValueError(f"no modality was passed: give at least one of {', '.join(self.modalities)}")
        sounds = [name for name in samples if self.modalities.get(name, {}).get("kind") == "audio"]
        if sampling_rate is not None and not sounds:
            raise ValueError("sampling_rate is for sounds, and none was passed: leave it out")
        samples |= {name: with_rates(name, samples[name], sampling_rate) for name in sounds}
        return MMPretrainInputs({name: self._tensors(name, items) for name, items in samples.items()})

    def finished(self, inputs: Mapping[str, dict[str, Tensor]]) -> MMPretrainInputs:
        """The second half, on the device where the tensors lie: what the encoders take. What is finished stays so."""
        return MMPretrainInputs({name: self._finished(name, tensors) for name, tensors in inputs.items()})

    def reader(self, name: str) -> Any | None:
        """The tokenizer or feature extractor of a modality; None for kinds that need neither."""
        return (self.tokenizers | self.feature_extractors).get(name)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> list[str]:
        """Write the config, tokenizers, feature extractors and the code files; returns the paths written."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"processor_class": type(self).__name__, "modalities": self.modalities}
        files = [str(path) for path in custom_object_save(self, folder, config=content) or []]
        for name, reader in (self.tokenizers | self.feature_extractors).items():
            files += reader.save_pretrained(folder / _folder(name, self.modalities[name]))
        (folder / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return [*files, str(folder / FILE_NAME)]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> MMPretrainProcessor:
        """Open a folder or Hub repository (keywords as ``revision``, ``token``, ``cache_dir``).

        Raises OSError if it has no processor files.
        """
        source = str(pretrained_model_name_or_path)
        hub = {key: value for key, value in kwargs.items() if key in HUB_ARGUMENTS and value is not None}
        path = cached_file(source, FILE_NAME, subfolder=kwargs.get("subfolder", ""), **hub)
        modalities = json.loads(Path(str(path)).read_text(encoding="utf-8"))["modalities"]
        # Without it, transformers would ask on the terminal whether to run code that a tokenizer's folder names.
        hub["trust_remote_code"] = False
        readers: dict[str, dict[str, Any]] = {"text": {}, "audio": {}}
        for name, modality in modalities.items():
            if modality["kind"] in readers:
                inside = os.path.join(kwargs.get("subfolder", ""), _folder(name, modality))
                auto: Any = AutoTokenizer if modality["kind"] == "text" else AutoFeatureExtractor
                readers[modality["kind"]][name] = auto.from_pretrained(source, subfolder=inside, **hub)
        return cls(modalities, *readers.values())

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Name the Auto class that a saved processor opens with; transformers calls it after loading shipped code."""
        cls._auto_class = auto_class

    def _tensors(self, name: str, items: Any) -> dict[str, Tensor]:
        modality = self.modalities.get(name)
        if modality is None:
            raise ValueError(f"unknown modality {name!r}: this processor has {', '.join(self.modalities)}")
        if not modality.get("optional"):
            return self._kind_tensors(name, items, modality)
        filled, present = optional_samples(name, items, modality)
        return mark_absent(self._kind_tensors(name, filled, modality), present)

    def _finished(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        finished = KINDS[self.modalities[name]["kind"]].finished
        return tensors if finished is None else finished(tensors, self.modalities[name])

    def _kind_tensors(self, name: str, items: Any, modality: dict[str, Any]) -> dict[str, Tensor]:
        return KINDS[modality["kind"]].tensors(name, items, modality, self.reader(name))


def _folder(name: str, modality: dict[str, Any]) -> str:
    """Where a release keeps the tokenizer or feature extractor of a modality."""
    return f"{KINDS[modality['kind']].folder}_{name}"


def _check_statistics(name: str, modality: dict[str, Any]) -> None:
    if modality["kind"] not in KINDS:
        raise ValueError(f"modality {name!r} is a {modality['kind']}: this version knows {', '.join(KINDS)}")
    kind = KINDS[modality["kind"]]
    expected = modality.get("channels", modality.get("size", [0])[0])
    for key in kind.statistics:
        if key in modality and len(modality[key]) != expected:
            raise ValueError(f"modality {name!r}: {key} has {len(modality[key])} numbers, {expected} are needed")
    if modality["kind"] == "image":
        check_entry(name, modality)
    if kind.paired and len({key in modality for key in kind.statistics}) > 1:
        raise ValueError(f"modality {name!r}: {' and '.join(kind.statistics)} are needed together")
