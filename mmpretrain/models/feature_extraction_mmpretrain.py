"""The feature extractor that ships: the sounds of one modality alone, as in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .audio_mmpretrain import EXTRACTORS, with_rates
from .batch_mmpretrain import check_form
from .inputs_mmpretrain import encoded_tensors, tensor_names


class MMPretrainFeatureExtractor(FeatureExtractionMixin):
    """``feature_extractor(sounds, sampling_rate=16000, return_tensors="pt")``: the same as the whole processor's.

    modality: the name that errors say. entry: what the processor's ``modalities`` say of it. extractor: the encoder's
    own feature extractor of transformers, or its settings; None where the samples themselves are taken.

    Raises ValueError for settings of an extractor that this code does not know.
    """

    _auto_class = "AutoFeatureExtractor"

    # Any: the settings come from a file.
    def __init__(
        self, modality: str = "audio", entry: dict[str, Any] | None = None, extractor: Any = None, **_: Any
    ) -> None:
        super().__init__()
        self.modality, self.entry = modality, dict(entry or {})
        self.extractor = opened_extractor(modality, extractor) if isinstance(extractor, Mapping) else extractor

    @property
    def sampling_rate(self) -> int:
        """The encoder's, in hertz; sounds of others are resampled."""
        rate: int = self.entry["sampling_rate"]
        return rate

    @property
    def model_input_names(self) -> list[str]:
        """How the tensors are called."""
        return tensor_names(self.entry, self.extractor)

    # Any: sounds come in many forms, and so do other libraries' keywords.
    def __call__(
        self, raw_speech: Any, sampling_rate: Any = None, return_tensors: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Sounds (arrays with their ``sampling_rate`` in hertz, or ``{"array", "sampling_rate"}``; one or a list) ->
        the encoder's tensors, which always have the same shape: padding and truncation are not to be chosen.

        return_tensors: ``"pt"`` (None, too) or ``"np"``. Raises ValueError for other keywords, and as the processor.
        """
        fixed = {"padding": (True, "longest", "max_length"), "truncation": (True,)}
        wrong = [key for key, value in kwargs.items() if value not in fixed.get(key, ())]
        if wrong:
            raise ValueError(f"{type(self).__name__} has no keyword {', '.join(wrong)}: it does what training did")
        check_form(return_tensors)
        rated = with_rates(self.modality, raw_speech, sampling_rate)
        tensors = encoded_tensors(self.modality, rated, self.entry, self.extractor)
        as_numpy = getattr(return_tensors, "value", return_tensors) == "np"
        return BatchFeature({key: tensor.numpy() if as_numpy else tensor for key, tensor in tensors.items()})

    def to_dict(self) -> dict[str, Any]:
        """What its file holds."""
        inner = None if self.extractor is None else self.extractor.to_dict()
        found = {"feature_extractor_type": type(self).__name__, "modality": self.modality, "entry": self.entry}
        auto_map = {"auto_map": self.auto_map} if hasattr(self, "auto_map") else {}
        return found | {"extractor": inner} | auto_map


def opened_extractor(name: str, settings: Mapping[str, Any]) -> Any:
    """A feature extractor of transformers from its settings. Raises ValueError for any but the known ones."""
    form = getattr(transformers, str(settings.get("feature_extractor_type")), None)
    if not isinstance(form, type) or not any(parent.__name__ in EXTRACTORS for parent in form.__mro__):
        raise ValueError(
            f"modality {name!r}: its feature extractor is a {settings.get('feature_extractor_type')!r}, and those that"
            f" are known are {', '.join(EXTRACTORS)}"
        )
    return form(**{key: value for key, value in settings.items() if key not in ("feature_extractor_type", "auto_map")})
