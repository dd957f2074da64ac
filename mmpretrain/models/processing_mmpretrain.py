"""The processor that ships: images, texts, vectors, sequences and sounds -> tensors for the encoders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from torch import Tensor
from transformers import ProcessorMixin

from .audio_mmpretrain import with_rates
from .batch_mmpretrain import MMPretrainInputs, collated
from .calls_mmpretrain import OPTIONS, CallOptions, call_of
from .feature_extraction_mmpretrain import MMPretrainFeatureExtractor
from .folder_mmpretrain import FILE_NAME, HUB_ARGUMENTS, config_of, first, opened, saved
from .image_processing_mmpretrain import MMPretrainImageProcessor
from .images_mmpretrain import check_entry
from .inputs_mmpretrain import KINDS, encoded_tensors, finished_tensors, tensor_names

__all__ = ["FILE_NAME", "HUB_ARGUMENTS", "MMPretrainInputs", "MMPretrainProcessor"]


class MMPretrainProcessor(ProcessorMixin):
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
        self.chat_template = None
        for name, modality in modalities.items():
            if name in OPTIONS:
                raise ValueError(f"modality {name!r} is called like a keyword of the processor: rename it")
            if modality["kind"] == "text" and name not in self.tokenizers:
                raise ValueError(f"modality {name!r} is a text, but no tokenizer was given for it")
            if modality["kind"] == "audio" and not modality.get("waveform") and self.reader(name) is None:
                raise ValueError(f"modality {name!r} is audio, but no feature extractor was given for it")
            _check_statistics(name, modality)

    # Any: images, texts and sounds come in many forms, and beside them stand keywords of every type.
    def __call__(self, images: Any = None, text: Any = None, audio: Any = None, **given: Any) -> MMPretrainInputs:
        """Turn samples into tensors: modality -> one sample or a list of b, or transformers' keywords ``images``,
        ``text`` and ``audio`` where only one modality is of that kind.

        Images are PIL images, arrays, tensors, paths or addresses (see :func:`as_image`), texts strings, vectors and
        sequences arrays, sounds arrays of one channel with their ``sampling_rate`` (hertz), or ``{"array": ...,
        "sampling_rate": ...}`` each. ``padding``, ``truncation``, ``max_length``, ``return_tensors`` and ``flat``
        as in :class:`CallOptions`. Returns what the model takes. Raises ValueError, which names the modality, for an
        unknown one, a sample of the wrong type or length, or a sound of unknown rate.
        """
        named = {"images": images, "text": text, "audio": audio}
        passed = {key: value for key, value in named.items() if value is not None} | given
        samples, values = call_of(self.modalities, passed)
        rate = values.pop("sampling_rate", None)
        options = CallOptions(**values)
        inputs = self.finished(self._encoded(rate, samples, options)).convert_to_tensors(options.return_tensors)
        return inputs.flat() if options.flat else inputs

    def encoded(self, /, *, sampling_rate: Any = None, **samples: Any) -> MMPretrainInputs:
        """The first half of a call, which loader processes do: what is small to hand over.

        Images are ``pixels`` uint8 [b, height, width, channels], which no encoder takes; all else is finished. Samples
        by modality, and errors as of a call; images may be :class:`Pictures`, too.
        """
        return self._encoded(sampling_rate, samples, CallOptions())

    def finished(self, inputs: Mapping[str, dict[str, Tensor]]) -> MMPretrainInputs:
        """The second half, on the device where the tensors lie: what the encoders take. What is finished stays so."""
        return MMPretrainInputs(
            {name: finished_tensors(tensors, self.modalities[name]) for name, tensors in inputs.items()}
        )

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> MMPretrainInputs:
        """What this processor answered for single samples, as one batch: a ``collate_fn`` or ``data_collator``.

        What stands beside the modalities, as ``labels``, is stacked. Raises ValueError if the samples do not have the
        same modalities.
        """
        return collated(samples, {name: tokenizer.pad_token_id for name, tokenizer in self.tokenizers.items()})

    def reader(self, name: str) -> Any | None:
        """The tokenizer or feature extractor of a modality; None for kinds that need neither."""
        return (self.tokenizers | self.feature_extractors).get(name)

    @property
    def tokenizer(self) -> Any:
        """Of the first text. AttributeError without one."""
        return self.tokenizers[self._first("text", "tokenizer")]

    @property
    def image_processor(self) -> MMPretrainImageProcessor:
        """Of the first image. AttributeError without one."""
        name = self._first("image", "image_processor")
        return MMPretrainImageProcessor.of(name, self.modalities[name])

    @property
    def feature_extractor(self) -> MMPretrainFeatureExtractor:
        """Of the first sound. AttributeError without one."""
        name = self._first("audio", "feature_extractor")
        return MMPretrainFeatureExtractor(name, self.modalities[name], self.reader(name))

    @property
    def model_input_names(self) -> list[str]:
        """How the tensors of all modalities are called, each name once."""
        found = [name for key, entry in self.modalities.items() for name in tensor_names(entry, self.reader(key))]
        return list(dict.fromkeys(found))

    @classmethod
    def get_attributes(cls) -> list[str]:
        """None that transformers could save or load by itself: see the properties."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """What FILE_NAME holds, but for the place of the code."""
        return config_of(type(self).__name__, self.modalities, self.tokenizers | self.feature_extractors)

    def to_json_string(self) -> str:
        """:meth:`to_dict` as JSON; the order of the modalities stays."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the config, tokenizers, feature extractors and the code files; returns the paths written.

        push_to_hub: also commit these files to ``repo_id`` (default: the folder's name), with ``token``, ``private``,
        ``revision``, ``commit_message`` and ``create_pr`` as of transformers' own. Raises what the Hub's client does.
        """
        folder = Path(save_directory)
        files = saved(self, folder, self.tokenizers | self.feature_extractors)
        if push_to_hub:
            _push(folder, files, **{key: value for key, value in kwargs.items() if key in _PUSH})
        return files

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> MMPretrainProcessor:
        """Open a folder or Hub repository (keywords as ``revision``, ``token``, ``cache_dir``, ``subfolder``).

        Code that it names is never run. Raises OSError if it has no processor files, and ValueError for those of
        something else.
        """
        hub = {key: value for key, value in kwargs.items() if key in HUB_ARGUMENTS and value is not None}
        return cls(*opened(str(pretrained_model_name_or_path), kwargs.get("subfolder") or "", **hub))

    def _encoded(self, rate: Any, samples: dict[str, Any], options: CallOptions) -> MMPretrainInputs:
        if not samples:
            raise ValueError(f"no modality was passed: give at least one of {', '.join(self.modalities)}")
        sounds = [name for name in samples if self.modalities.get(name, {}).get("kind") == "audio"]
        if rate is not None and not sounds:
            raise ValueError("sampling_rate is for sounds, and none was passed: leave it out")
        samples = samples | {name: with_rates(name, samples[name], rate) for name in sounds}
        return MMPretrainInputs({name: self._tensors(name, items, options) for name, items in samples.items()})

    def _tensors(self, name: str, items: Any, options: CallOptions) -> dict[str, Tensor]:
        modality = self.modalities.get(name)
        if modality is None:
            raise ValueError(f"unknown modality {name!r}: this processor has {', '.join(self.modalities)}")
        reader = self.reader(name)
        return encoded_tensors(name, items, options.entry(name, modality, reader), reader)

    def _first(self, kind: str, attribute: str) -> str:
        name = first(self.modalities, kind)
        if name is None:
            raise AttributeError(f"this processor has no {attribute}: its modalities are {', '.join(self.modalities)}")
        return name


_PUSH = ("repo_id", "token", "private", "revision", "commit_message", "commit_description", "create_pr")


def _push(folder: Path, files: Sequence[str], repo_id: str | None = None, **kwargs: Any) -> None:
    """One commit of these files: a reader sees all of them or none."""
    client = HfApi(token=kwargs.pop("token", None))
    repo = client.create_repo(repo_id or folder.resolve().name, private=kwargs.pop("private", None), exist_ok=True)
    if kwargs.get("revision") and not kwargs["revision"].startswith("refs/"):
        client.create_branch(repo.repo_id, branch=kwargs["revision"], exist_ok=True)
    operations = [CommitOperationAdd(Path(path).relative_to(folder).as_posix(), path) for path in dict.fromkeys(files)]
    message = kwargs.pop("commit_message", None) or "Upload processor"
    client.create_commit(repo.repo_id, operations, commit_message=message, **kwargs)


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
