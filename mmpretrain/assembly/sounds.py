"""Feature extractors of sounds: opened or made to fit an architecture, and what follows from them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    ClapFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from mmpretrain.config.architectures import Pool
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.models.audio_mmpretrain import HOP, WINDOW, fixed_samples, supported
from mmpretrain.problems import UnusableError, cannot_open

DEFAULT_SECONDS = 10.0  # of sounds for extractors that take any length
AST_RATE = 16_000
# What the encoders pool by themselves; the frames of the others are averaged. AST's two class tokens are only worth
# something once it is trained: a small new one that was pooled by them did not learn to tell tones apart.
_POOLS = {"clap_audio_model": Pool.pooler}
_TRAINED_POOLS = _POOLS | {"audio-spectrogram-transformer": Pool.pooler}
# Keywords of the configs of Wav2Vec2 and its kin that drop whole layers or time steps in training. They draw from
# numpy's generator, which is not part of the run's state, or leave parameters without gradients on some ranks.
_RANDOM = {
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
}


class SoundForm(NamedTuple):
    """What encoders get: samples per second, and seconds."""

    sampling_rate: int
    seconds: float


def open_extractor(key: str, source: str, revision: str | None) -> Any:
    """The feature extractor in a folder or on the Hub; key: where the config names it.

    Raises UnusableError if it cannot be opened, or pads in a way that is not known here.
    """
    try:
        extractor = AutoFeatureExtractor.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # Damaged files raise whatever their parser raises.
        raise cannot_open(key, source, error) from error
    if not supported(extractor):
        raise UnusableError(
            [
                f"{key}: {source} has a {type(extractor).__name__}; the feature extractors of AST, CLAP, Wav2Vec2 (and"
                " HuBERT, WavLM) and Whisper can be used"
            ]
        )
    return extractor


def made_extractor(where: str, architecture: str, config: Mapping[str, Any], modality: ModalityConfig) -> Any:
    """One for a new encoder: of the modality's rate and length, or the architecture's usual ones.

    config: keywords of the architecture. Raises UnusableError for an architecture that none is known for.
    """
    make = _MADE.get(architecture, _wav2vec2 if architecture in _WAV2VEC2 else None)
    if make is None:
        known = ", ".join([*_MADE, *_WAV2VEC2])
        raise UnusableError([f"{where}.architecture is {architecture}: of sounds, new encoders of {known} can be made"])
    return make(config, modality)


def sound_form(name: str, modality: ModalityConfig, extractor: Any) -> SoundForm:
    """The rate and length that encoders get. Raises UnusableError if the extractor takes others than the data says."""
    key, problems = f"data.modalities.{name}", []
    rate, fixed = int(extractor.sampling_rate), fixed_samples(extractor)
    if modality.sampling_rate not in (None, rate):
        problems.append(
            f"{key}.sampling_rate is {modality.sampling_rate}, but its feature extractor takes {rate} Hz: set {rate},"
            " or leave it out; files of other rates are resampled"
        )
    longest = None if fixed is None else fixed / rate
    seconds = modality.seconds or longest or DEFAULT_SECONDS
    # AST's frames end at less than the last of the samples that they are made for.
    if longest is not None and seconds > longest + WINDOW / rate:
        problems.append(f"{key}.seconds is {seconds:g}, but its feature extractor takes {longest:g}: set that, or less")
    if seconds * rate < WINDOW:
        problems.append(f"{key}.seconds is {seconds:g}: at least {WINDOW / rate:g} are needed at {rate} Hz")
    if problems:
        raise UnusableError(problems)
    return SoundForm(rate, float(seconds))


def sound_sizes(extractor: Any) -> dict[str, Any]:
    """Keywords of architectures that follow from the feature extractor; each takes those that it knows."""
    if isinstance(extractor, ASTFeatureExtractor):
        return {"num_mel_bins": extractor.num_mel_bins, "max_length": extractor.max_length}
    if isinstance(extractor, ClapFeatureExtractor):
        return {"num_mel_bins": extractor.feature_size, "enable_fusion": extractor.truncation == "fusion"}
    if isinstance(extractor, WhisperFeatureExtractor):
        frames = fixed_samples(extractor) // extractor.hop_length
        return {"num_mel_bins": extractor.feature_size, "max_source_positions": frames // 2}
    return {}


def sound_pool(architecture: str, encoder: EncoderConfig) -> Pool:
    """How the states of an audio encoder become one vector unless the config says otherwise."""
    return (_TRAINED_POOLS if encoder.pretrained else _POOLS).get(architecture, Pool.mean)


def settled(where: str, asked: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Keywords that switch off what would make a run depend on more than its seed. asked: by the config; known: to the
    architecture. Raises UnusableError if one of them is asked for."""
    off = {key: value for key, value in _RANDOM.items() if key in known}
    problems = [
        f"{where}.config.{key} is {asked[key]}: what it drops is drawn outside the run's seed, and layers without"
        f" gradients stop ZeRO; leave it out and set data.modalities.{where.rpartition('.')[2]}.train"
        for key, value in off.items()
        if asked.get(key, value) != value
    ]
    if problems:
        raise UnusableError(problems)
    return off


def lacking_packages(name: str, modality: ModalityConfig) -> list[str]:
    """A sentence if what reads this modality is not installed."""
    row = modality.kind.row
    missing = [package for package in row.packages if importlib.util.find_spec(package) is None]
    if not missing:
        return []
    return [
        f"modality {name!r} is {modality.kind.value}, which needs the extra {row.extra} ({', '.join(missing)} not"
        f" found): pip install 'mmpretrain-contrastive[{row.extra}]'"
    ]


def _ast(config: Mapping[str, Any], modality: ModalityConfig) -> ASTFeatureExtractor:
    bins, length = config.get("num_mel_bins", 128), config.get("max_length", 1024)
    if "max_length" not in config and modality.seconds is not None:
        length = max(1, 1 + (round(modality.seconds * AST_RATE) - WINDOW) // HOP)
    with warnings.catch_warnings():
        # AST's usual bins are narrower than its frequencies in the bass; nobody can do anything about it.
        warnings.filterwarnings("ignore", message="At least one mel filter")
        return ASTFeatureExtractor(num_mel_bins=bins, max_length=length, sampling_rate=AST_RATE)


def _clap(config: Mapping[str, Any], modality: ModalityConfig) -> ClapFeatureExtractor:
    rate = modality.sampling_rate or 48_000
    return ClapFeatureExtractor(
        feature_size=config.get("num_mel_bins", 64),
        sampling_rate=rate,
        max_length_s=_whole(modality.seconds or 10),
        frequency_max=min(14_000, rate // 2),
        truncation="fusion" if config.get("enable_fusion") else "rand_trunc",
    )


def _whisper(config: Mapping[str, Any], modality: ModalityConfig) -> WhisperFeatureExtractor:
    seconds = modality.seconds or 30
    if "max_source_positions" in config:
        seconds = config["max_source_positions"] / 50
    # A state is two frames of 10 ms.
    chunk = _whole(-(-round(seconds * 1000) // 20) / 50)
    return WhisperFeatureExtractor(feature_size=config.get("num_mel_bins", 80), chunk_length=chunk)


def _wav2vec2(config: Mapping[str, Any], modality: ModalityConfig) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=modality.sampling_rate or 16_000, return_attention_mask=True)


def _whole(seconds: float) -> float:
    """As a whole number where it is one, as the extractors' files have it."""
    return int(seconds) if float(seconds).is_integer() else seconds


_MADE: dict[str, Callable[[Mapping[str, Any], ModalityConfig], Any]] = {
    "audio-spectrogram-transformer": _ast,
    "clap_audio_model": _clap,
    "whisper": _whisper,
}
_WAV2VEC2 = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
