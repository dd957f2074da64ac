"""Configuration of a multimodal model: one encoder per modality, and what sits on top.

The lines below are read by transformers, not by Python. It looks for imports by pattern, names the module of a folder's
code after the bytes of this file and of all that is named so, and keeps one model class per config class. Without them
two releases whose configs are the same code would share a config class, and the second would run the first one's model.

    import .asked_mmpretrain
    import .attention_mmpretrain
    import .audio_mmpretrain
    import .batch_mmpretrain
    import .calls_mmpretrain
    import .components_mmpretrain
    import .connected_mmpretrain
    import .contents_mmpretrain
    import .convolution_mmpretrain
    import .dual_mmpretrain
    import .encoders_mmpretrain
    import .factors_mmpretrain
    import .feature_extraction_mmpretrain
    import .folder_mmpretrain
    import .function_mmpretrain
    import .fusion_mmpretrain
    import .heads_mmpretrain
    import .image_processing_mmpretrain
    import .images_mmpretrain
    import .inputs_mmpretrain
    import .intake_mmpretrain
    import .linear_fusion_mmpretrain
    import .modeling_mmpretrain
    import .outputs_mmpretrain
    import .places_mmpretrain
    import .pooling_mmpretrain
    import .precision_mmpretrain
    import .processing_mmpretrain
    import .reading_mmpretrain
    import .recording_mmpretrain
    import .recurrent_mmpretrain
    import .resizing_mmpretrain
    import .robotics_mmpretrain
    import .sequence_mmpretrain
    import .similarity_mmpretrain
    import .texts_mmpretrain
    import .tools_mmpretrain
"""

from __future__ import annotations

from typing import Any

import transformers
from packaging.version import Version

# Before, transformers copied only the files that the opened one imports itself, and a release did not open.
OLDEST_TRANSFORMERS = "5.10.1"
if Version(transformers.__version__) < Version(OLDEST_TRANSFORMERS):
    raise ImportError(
        f"this model needs transformers {OLDEST_TRANSFORMERS} or newer, and {transformers.__version__} is installed:"
        ' pip install --upgrade "transformers>='
        f'{OLDEST_TRANSFORMERS}"'
    )

FUSIONS = ("transformer", "linear")
SIMILARITIES = ("softmax", "sigmoid")
POOLS = ("cls", "mean", "last", "flatten", "pooler")


class MMPretrainConfig(transformers.PreTrainedConfig):
    """What :class:`MMPretrainModel` is built from.

    encoders: modality -> ``{"architecture": model_type of transformers, or mlp, identity, cnn, sequence,
    "config": its full config, "pool": one of POOLS}``, and ``"masked": False`` for one that is not told which tokens
    are padding.
    modalities: their order, in which embeddings are concatenated (default: that of ``encoders``).
    embed_dim: width of a bias-free projection per modality; None: the embedding is the pooled encoder output.
    projections: modality -> ``{"hidden": units, "normalized": bool}`` for those whose projection to ``embed_dim`` is an
    MLP with ReLU and biases instead, and of unit length if ``normalized`` (CLAP's); None: no modality's is.
    classifier_hidden: hidden width of the classifier over all modalities; None: no classifier. classifier_dropout:
    share of its hidden units that are set to 0 while training. Its classes are
    transformers' ``num_labels`` or ``id2label``. fused_classifier: whether there is one that is linear, on what the
    fusion makes of all modalities, instead. method: name of the objective that it was trained with.
    fusion: arguments of the fusion (``form``: transformer, the default, or linear; ``width``; of the transformer also
    ``heads``, ``layers``, ``vectors``), whose outputs the embeddings are then; None: no fusion.
    factors: arguments of the heads for what is shared and what is unique (``hidden``, ``width``, ``layers``); None: no
    such heads. components: arguments of the heads for common and individual codes (``common``, ``hidden``, and
    ``individual``, modality -> width); None: no such heads.
    connection: arguments of the connection of two spaces (``spaces``, ``inputs``, and of the projectors), which then is
    the whole model; None: no connection.
    similarity: ``{"form": softmax or sigmoid}`` of a method that trains with a similarity of embeddings, whose scale
    (and, of sigmoid, bias) the model then holds; None: it does not, as in releases from before they shipped. With
    ``"per_modality": True`` there is a scale for the logits of each modality, in their order (CLAP's).

    places: text -> ``{"length": tokens}`` that it has at most, longer ones are refused; with ``"filler": id``, of those
    whose encoder sees padding, shorter ones are filled to that length with that token (:func:`filled`). None: texts of
    any length as they come, as in releases from before they said.

    attn_implementation: handed to the backbones; one name for all, or modality -> name, with "" -> that of the others.

    Raises ValueError for an unknown pool or form of fusion or similarity, if ``modalities`` and ``encoders`` name
    different modalities, if ``attn_implementation`` names another, if both a fusion and an ``embed_dim`` are asked for,
    or a ``fused_classifier`` without a fusion or beside another classifier.
    """

    model_type = "mmpretrain"
    _auto_class = "AutoConfig"

    def __init__(
        self,
        encoders: dict[str, dict[str, Any]] | None = None,
        modalities: list[str] | None = None,
        embed_dim: int | None = None,
        classifier_hidden: int | None = None,
        method: str | None = None,
        fusion: dict[str, Any] | None = None,
        factors: dict[str, Any] | None = None,
        components: dict[str, Any] | None = None,
        connection: dict[str, Any] | None = None,
        projections: dict[str, dict[str, Any]] | None = None,
        similarity: dict[str, Any] | None = None,
        places: dict[str, dict[str, int]] | None = None,
        fused_classifier: bool = False,
        classifier_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.encoders = encoders or {}
        # JSON files are written with sorted keys, so the order needs a list of its own.
        self.modalities = list(modalities if modalities is not None else self.encoders)
        self.embed_dim = embed_dim
        self.classifier_hidden = classifier_hidden
        self.method = method
        self.fusion = fusion
        self.factors = factors
        self.components = components
        self.connection = connection
        self.projections = projections
        self.similarity = similarity
        self.places = places
        self.fused_classifier = fused_classifier
        self.classifier_dropout = classifier_dropout
        if fused_classifier and (fusion is None or classifier_hidden is not None):
            raise ValueError("fused_classifier needs a fusion, and takes the place of classifier_hidden: leave it out")
        if similarity is not None and similarity.get("form") not in SIMILARITIES:
            raise ValueError(f"similarity: form is {similarity.get('form')!r}, use one of {', '.join(SIMILARITIES)}")
        if fusion is not None and embed_dim is not None:
            raise ValueError(
                "embed_dim projects pooled encoder outputs, but a fusion has a width of its own: leave it out"
            )
        if fusion is not None and fusion.get("form", "transformer") not in FUSIONS:
            raise ValueError(f"fusion: form is {fusion['form']!r}, use one of {', '.join(FUSIONS)}")
        if projections and (embed_dim is None or set(projections) - set(self.encoders)):
            raise ValueError(f"projections {sorted(projections)} need an embed_dim, and encoders of their names")
        named = self.encoders if connection is None else connection["inputs"]
        if sorted(self.modalities) != sorted(named):
            raise ValueError(f"modalities {self.modalities} do not match the encoders {sorted(named)}")
        for name, encoder in self.encoders.items():
            if encoder.get("pool") not in POOLS:
                raise ValueError(f"encoder {name!r}: pool is {encoder.get('pool')!r}, use one of {', '.join(POOLS)}")
        super().__init__(**kwargs)

    @property
    def _attn_implementation(self) -> str | None:
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict[str, str] | None) -> None:
        # The model notes its own choice in the internal attribute: what was asked for must be known apart from it.
        self._attn_requested = self.checked_attention(value)
        self._attn_implementation_internal = value.get("") if isinstance(value, dict) else value

    def attention_of(self, name: str) -> str | None:
        """The implementation of attention that was asked for the modality's encoder; None: its own choice."""
        asked = self._attn_requested
        return asked.get(name, asked.get("")) if isinstance(asked, dict) else asked

    def checked_attention(self, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        """``value``. Raises ValueError for a modality that has no encoder here."""
        unknown = sorted(set(value) - {"", *self.encoders}) if isinstance(value, dict) else []
        if unknown:
            known = ", ".join(self.encoders) or "none (a connection's models take one name for all)"
            raise ValueError(f"attn_implementation: no encoder of {', '.join(unknown)}; this model has {known}")
        return value

    def _remove_keys_not_serialized(self, d: dict[str, Any]) -> None:
        d.pop("_attn_requested", None)
        super()._remove_keys_not_serialized(d)
