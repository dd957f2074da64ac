"""Configuration of a multimodal model: one encoder per modality, and what sits on top."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

FUSIONS = ("transformer", "linear")
SIMILARITIES = ("softmax", "sigmoid")
POOLS = ("cls", "mean", "last", "flatten", "pooler")


class MMPretrainConfig(PreTrainedConfig):
    """What :class:`MMPretrainModel` is built from.

    encoders: modality -> ``{"architecture": model_type of transformers, or mlp, identity, cnn, sequence,
    "config": its full config, "pool": one of POOLS}``, and ``"masked": False`` for one that is not told which tokens
    are padding.
    modalities: their order, in which embeddings are concatenated (default: that of ``encoders``).
    embed_dim: width of a bias-free projection per modality; None: the embedding is the pooled encoder output.
    projections: modality -> ``{"hidden": units, "normalized": bool}`` for those whose projection to ``embed_dim`` is an
    MLP with ReLU and biases instead, and of unit length if ``normalized`` (CLAP's); None: no modality's is.
    classifier_hidden: hidden width of the classifier over all modalities; None: no classifier. Its classes are
    transformers' ``num_labels`` or ``id2label``. method: name of the objective that it was trained with.
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

    Raises ValueError for an unknown pool or form of fusion or similarity, if ``modalities`` and ``encoders`` name
    different modalities, or if both a fusion and an ``embed_dim`` are asked for.
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
