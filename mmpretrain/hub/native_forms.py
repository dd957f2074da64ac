"""CLIP's and SigLIP's own formats: which models have them, and what stands against it, as keys of a run's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import CLIPConfig, CLIPModel, CLIPProcessor, SiglipConfig, SiglipModel, SiglipProcessor

from mmpretrain.config.kind import Kind
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.inputs_mmpretrain import MULTIPLE


@dataclass(frozen=True)
class Form:
    """A format of transformers. title: its name. architectures: of its encoders. projected: whether embeddings are
    projected, without bias. pools: of its texts. padded: whether every text is padded to the full length, and the
    encoder not told so. similarity: the form of its logits."""

    title: str
    model: Any
    config: Any
    processor: Any
    architectures: Mapping[Kind, str]
    projected: bool
    pools: tuple[str, ...]
    padded: bool
    similarity: str

    def arguments(self, kind: Kind, items: list[Any]) -> dict[str, Any]:
        """What its processor is called with for samples of a kind."""
        if kind is Kind.image:
            return {"images": items}
        return {"text": items, "padding": "max_length" if self.padded else True, "truncation": True}


FORMS = (
    Form(
        title="CLIP",
        model=CLIPModel,
        config=CLIPConfig,
        processor=CLIPProcessor,
        architectures={Kind.image: "clip_vision_model", Kind.text: "clip_text_model"},
        projected=True,
        # A text ends with a token of its own, whose state both give.
        pools=("pooler", "last"),
        padded=False,
        similarity="softmax",
    ),
    Form(
        title="SigLIP",
        model=SiglipModel,
        config=SiglipConfig,
        processor=SiglipProcessor,
        architectures={Kind.image: "siglip_vision_model", Kind.text: "siglip_text_model"},
        projected=False,
        pools=("pooler",),
        padded=True,
        similarity="sigmoid",
    ),
)


def nearest_form(config: MMPretrainConfig) -> Form | None:
    """The format that one of the encoders belongs to; None where none does."""
    found = {encoder["architecture"] for encoder in config.encoders.values()}
    return next((form for form in FORMS if found & set(form.architectures.values())), None)


def tower_names(config: MMPretrainConfig) -> dict[Kind, str]:
    """The modality of each kind, by the architecture of its encoder."""
    kinds = {architecture: kind for form in FORMS for kind, architecture in form.architectures.items()}
    return {kinds[encoder["architecture"]]: name for name, encoder in config.encoders.items()}


def parts_problems(form: Form, config: MMPretrainConfig) -> list[str]:
    """What of a model is otherwise than in this format, and how a run is told so; one sentence each."""
    wanted = set(form.architectures.values())
    found = {name: encoder["architecture"] for name, encoder in config.encoders.items()}
    if len(found) != 2 or set(found.values()) != wanted:
        listed = ", ".join(f"{name} ({architecture})" for name, architecture in found.items())
        return [f"it holds one {' and one '.join(sorted(wanted))}, and the encoders are {listed}"]
    if config.fusion is not None or config.connection is not None:
        return [f"{form.title} has no fusion"]
    problems = []
    if form.projected and (config.embed_dim is None or config.projections):
        problems.append(f"{form.title} projects both encoders linearly: set model.embed_dim")
    if not form.projected and config.embed_dim is not None:
        problems.append(f"{form.title} has no projections: set model.embed_dim=null, and encoders of one width")
    for kind, name in tower_names(config).items():
        encoder = config.encoders[name]
        pools = form.pools if kind is Kind.text else ("pooler",)
        if encoder["pool"] not in pools:
            problems.append(f"model.encoders.{name}.pool is {encoder['pool']}: set {pools[0]}")
        if kind is Kind.text and form.padded and encoder.get("masked", True):
            problems.append(f"{form.title} was not told which tokens are padding, and {name} is")
    return problems


def inputs_problems(form: Form, config: MMPretrainConfig, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What of the inputs its processor cannot do. entries: of the release's processor."""
    names, problems = tower_names(config), []
    image, text = entries[names[Kind.image]], entries[names[Kind.text]]
    key = f"data.modalities.{names[Kind.image]}"
    if image["channels"] != 3:
        problems.append(f"{form.title} takes pictures in color: set {key}.channels=3")
    if image["size"][0] != image["size"][1]:
        problems.append(f"{form.title} takes square pictures, and {key}.size is {image['size']}")
    if image.get("resize") == "pad":
        problems.append(f"{form.title} crops pictures or squashes them: set {key}.resize=crop")
    if form.padded and MULTIPLE in text:
        problems.append(f"{form.title} pads every text fully: set data.modalities.{names[Kind.text]}.padding=full")
    return problems
