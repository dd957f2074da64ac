"""The model card: metadata for the Hub, and what a reader needs, filled from the run (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from omegaconf import OmegaConf

from mmpretrain.config.kind import Kind
from mmpretrain.config.methods.names import METHODS, MethodConfig
from mmpretrain.data.info import DatasetInfo
from mmpretrain.records import Score, parse_scores

_ABSOLUTE = re.compile(r"(?<![\w/.~])(?:file://)?~?/(?!/)(?:[^\s/'\"]+/)*([^\s/'\"]+)/?")
_SECRET_VALUE = re.compile(r"\b(?:hf|sk|ghp|github_pat)_[A-Za-z0-9_]{16,}|(?<=://)[^/\s@]+@")
_SECRET_KEY = re.compile(r"token(?!izer)|password|secret|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class TrainingFacts:
    """How the weights came about. samples_per_s: over all ranks. hardware: in words, ``2 x CPU (8 threads)``."""

    samples: int
    steps: int
    world_size: int
    samples_per_s: float | None = None
    hardware: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card tells.

    name: of the run. hyperparameters: the resolved config as plain containers. evaluation: the flat content of
    ``evaluation.json``, on ``split``. license: of the weights, an id that the Hub knows (None: not chosen yet).
    not_held_out: why the evaluation is of no held-out data, as the end of a sentence; None if it is.
    """

    name: str
    method: str
    dataset: DatasetInfo
    hyperparameters: Mapping[str, Any]
    training: TrainingFacts
    evaluation: Mapping[str, float] = field(default_factory=dict)
    split: str = "test"
    license: str | None = None
    not_held_out: str | None = None


@dataclass(frozen=True)
class ConvertedFacts:
    """The same of a model that was not trained here. origin: its name on the Hub, or that of its folder; base_model:
    its name on the Hub alone."""

    name: str
    origin: str
    base_model: str | None = None
    license: str | None = None


def model_card(
    facts: CardFacts | ConvertedFacts, modalities: Mapping[str, Mapping[str, Any]], has_classifier: bool
) -> ModelCard:
    """The card of a release. modalities: those of its processor. Absolute paths and secrets are left out."""
    if isinstance(facts, ConvertedFacts):
        body = f"{_converted(facts, modalities)}\n\n{_loading(modalities, has_classifier)}"
        return ModelCard(public(f"---\n{_converted_metadata(facts).to_yaml()}\n---\n\n{body}\n"))
    scores = parse_scores(dict(facts.evaluation))
    sections = [
        _introduction(facts, modalities),
        _loading(modalities, has_classifier),
        _data(facts.dataset),
        _training(facts.training),
        _evaluation(scores, facts.split),
        _hyperparameters(facts.hyperparameters),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(public(f"---\n{_metadata(facts, scores).to_yaml()}\n---\n\n{body}\n"))


def _loading(modalities: Mapping[str, Mapping[str, Any]], has_classifier: bool) -> str:
    return f"## How to load it\n\n```python\n{usage(modalities, has_classifier)}```"


def usage(modalities: Mapping[str, Mapping[str, Any]], has_classifier: bool) -> str:
    """Python code that opens a release and embeds one made-up sample of every modality."""
    kinds = {modality["kind"] for modality in modalities.values()}
    lines = sorted({kind.row.imports for kind in Kind if kind.value in kinds and kind.row.imports}, reverse=True)
    lines += [
        "from transformers import AutoModel, AutoProcessor",
        "",
        'path = "."  # this folder, or its name on the Hub',
        "model = AutoModel.from_pretrained(path, trust_remote_code=True)",
        "processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)",
        "",
        "# Any subset of the modalities will do; put your own samples here.",
        "inputs = processor(",
        *(f"    {name}=[{_example(modality)}]," for name, modality in modalities.items()),
        ")",
        "output = model(**inputs)",
        "output.embeds  # modality -> [batch, width]; normalize before taking cosine similarities",
    ]
    lines += ["output.logits  # [batch, classes], if every modality was passed"] * has_classifier
    return "\n".join(lines) + "\n"


def public(text: str) -> str:
    """``text`` with absolute paths cut to their last part, and with credentials struck out."""
    return _ABSOLUTE.sub(r"\1", _SECRET_VALUE.sub("", text))


def _example(modality: Mapping[str, Any]) -> str:
    return Kind(modality["kind"]).row.example(modality)


def _metadata(facts: CardFacts, scores: list[Score]) -> ModelCardData:
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Frozen embeddings and logits",
            dataset_type=facts.dataset.name,
            dataset_name=facts.dataset.title,
            dataset_split=facts.split,
            metric_type=score.name,
            metric_name=f"{_title(score)}: {score.name}",
            metric_value=round(score.value, 6),
        )
        for score in scores
    ]
    return ModelCardData(
        model_name=facts.name,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        license=facts.license,
        tags=["multimodal", "contrastive-learning", "mmpretrain", facts.method],
        datasets=[facts.dataset.name],
        base_model=_base_models(facts.hyperparameters) or None,
        eval_results=results or None,
    )


def _base_models(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Hub ids that the encoders started from; local folders mean nothing to a reader."""
    encoders = (hyperparameters.get("model") or {}).get("encoders") or {}
    sources = {str(entry["pretrained"]) for entry in encoders.values() if entry.get("pretrained")}
    return sorted(source for source in sources if _on_the_hub(source))


def _on_the_hub(source: str) -> bool:
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", source)) and not Path(source).exists()


def _converted_metadata(facts: ConvertedFacts) -> ModelCardData:
    return ModelCardData(
        model_name=facts.name,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        license=facts.license,
        tags=["multimodal", "mmpretrain"],
        base_model=facts.base_model,
    )


def _converted(facts: ConvertedFacts, modalities: Mapping[str, Mapping[str, Any]]) -> str:
    return (
        f"# {facts.name}\n\nThe encoders of {facts.origin} in the form of mmpretrain: the same weights, preprocessing"
        f" and embeddings. Nothing was trained.\n\n- Modalities: {_kinds(modalities)}\n- License of the weights:"
        f" {facts.license or f'that of {facts.origin}'}"
    )


def _kinds(modalities: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"`{name}` ({modality['kind']})" for name, modality in modalities.items())


def _introduction(facts: CardFacts, modalities: Mapping[str, Mapping[str, Any]]) -> str:
    method = METHODS.get(facts.method, MethodConfig)
    title, paper = method.title or facts.method, method.arxiv
    source = f"{title} ([arXiv:{paper}](https://arxiv.org/abs/{paper}))" if paper else title
    return (
        f"# {facts.name}\n\nMultimodal encoders, trained contrastively with mmpretrain on {facts.dataset.title}."
        f"\n\n- Modalities: {_kinds(modalities)}\n- Method: {source}"
        f"\n- License of the weights: {facts.license or 'not chosen by who trained them'}"
    )


def _data(dataset: DatasetInfo) -> str:
    lines = [f"- Name: {dataset.title}", f"- Source: {dataset.source}", f"- License: {dataset.license}"]
    if dataset.classes:
        lines.append(f"- Classes: {', '.join(dataset.classes)}")
    return "## Data\n\n" + "\n".join(lines)


def _training(training: TrainingFacts) -> str:
    lines = [
        f"- Samples seen: {training.samples:,} in {training.steps:,} optimizer steps",
        f"- Processes: {training.world_size}",
    ]
    if training.samples_per_s is not None:
        lines.append(f"- Throughput: {training.samples_per_s:,.0f} samples per second")
    if training.hardware:
        lines.append(f"- Hardware: {training.hardware}")
    return "## Training\n\n" + "\n".join(lines)


def _evaluation(scores: list[Score], split: str) -> str:
    if not scores:
        return ""
    rows = [
        f"| {_title(score)} | {score.name} | {score.value:.4f} |"
        f" {'' if score.chance is None else f'{score.chance:.4f}'} |"
        for score in scores
    ]
    head = ["| what | score | value | by chance |", "|---|---|---|---|"]
    return f"## Evaluation on the {split} split\n\n" + "\n".join(head + rows)


def _hyperparameters(config: Mapping[str, Any]) -> str:
    text = OmegaConf.to_yaml(OmegaConf.create(_without_secrets(config)))
    return f"## Hyper-parameters\n\nThe resolved config of the run.\n\n```yaml\n{text}```"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_secrets(v) for key, v in value.items() if not _SECRET_KEY.search(str(key))}
    return [_without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value


def _title(score: Score) -> str:
    words = score.metric.replace("_", " ")
    return f"{words} ({score.subject})" if score.subject else words
