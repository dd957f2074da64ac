"""The model card: metadata for the Hub, and what a reader needs, filled from the run (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mmpretrain.hub import card_text
from mmpretrain.hub.card_facts import CardFacts, ConvertedFacts, Offered, TrainingFacts
from mmpretrain.hub.card_usage import Modalities
from mmpretrain.records import Score, parse_scores
from mmpretrain.release_folder import made_of

__all__ = ["CardFacts", "ConvertedFacts", "Offered", "TrainingFacts", "model_card", "public"]

# Of two parts at least, or under the home folder; </details> and ${data.path}/train are none.
_ABSOLUTE = re.compile(r"(?<![\w/.~<}])(?:file://)?(?:~/|/(?!/)[^\s/'\"<>]+/)(?:[^\s/'\"<>]+/)*([^\s/'\"<>]+)/?")
_SECRET_VALUE = re.compile(r"\b(?:hf|sk|ghp|github_pat)_[A-Za-z0-9_]{16,}|(?<=://)[^/\s@]+@")
_SECRET_KEY = re.compile(r"token(?!izer)|password|secret|api_?key|credential", re.IGNORECASE)


def model_card(facts: CardFacts | ConvertedFacts, modalities: Modalities, offered: Offered) -> ModelCard:
    """The card of a release. modalities: those of its processor. Absolute paths and secrets are left out."""
    if isinstance(facts, ConvertedFacts):
        sections = [card_text.converted(facts, modalities), card_text.loading(modalities, offered)]
        return _card(_converted_metadata(facts, offered), sections)
    facts = replace(facts, hyperparameters=_without_secrets(facts.hyperparameters))
    scores, sources = parse_scores(dict(facts.evaluation)), sorted(set(_base_models(facts)))
    sections = [
        card_text.introduction(facts, modalities, sorted(set(map(_called, sources)))),
        card_text.loading(modalities, offered),
        card_text.evaluation(facts, scores),
        card_text.changes(facts),
        card_text.training(facts.training, facts.dataset),
        card_text.lora(offered.adapters),
        card_text.limits(facts, modalities),
        card_text.citation(facts.method),
        card_text.hyperparameters(facts.hyperparameters),
    ]
    return _card(_metadata(facts, scores, sources, offered), sections)


def public(text: str) -> str:
    """``text`` with absolute paths cut to their last part, and with credentials struck out."""
    return _ABSOLUTE.sub(r"\1", _SECRET_VALUE.sub("", text))


def _card(metadata: ModelCardData, sections: list[str]) -> ModelCard:
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(public(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"))


def _metadata(facts: CardFacts, scores: list[Score], sources: list[str], offered: Offered) -> ModelCardData:
    return ModelCardData(
        model_name=facts.name,
        library_name="transformers",
        pipeline_tag=_pipeline(offered),
        license=facts.license,
        tags=["multimodal", "contrastive-learning", "mmpretrain", facts.method, *_libraries(offered)],
        datasets=[facts.dataset.name],
        base_model=[source for source in sources if _on_the_hub(source)] or None,
        eval_results=_results(facts, scores) or None,
    )


def _results(facts: CardFacts, scores: list[Score]) -> list[EvalResult]:
    """For the Hub's tables of models, which hold claims about new data alone."""
    if facts.not_held_out is not None or facts.rounded_to is not None:
        return []
    return [
        EvalResult(
            task_type="feature-extraction",
            task_name="Frozen embeddings and logits",
            dataset_type=facts.dataset.name,
            dataset_name=facts.dataset.title,
            dataset_split=facts.split,
            metric_type=score.name,
            metric_name=f"{card_text.title_of(score)}: {score.name}",
            metric_value=round(score.value, 6),
        )
        for score in scores
        if not score.name.startswith(card_text.PER_CLASS)
    ]


def _converted_metadata(facts: ConvertedFacts, offered: Offered) -> ModelCardData:
    return ModelCardData(
        model_name=facts.name,
        library_name="transformers",
        pipeline_tag=_pipeline(offered),
        license=facts.license,
        tags=["multimodal", "mmpretrain", *_libraries(offered)],
        base_model=facts.base_model,
    )


def _pipeline(offered: Offered) -> str:
    return "zero-shot-image-classification" if offered.zero_shot else "feature-extraction"


def _libraries(offered: Offered) -> list[str]:
    return ["sentence-transformers"] if offered.sentence_transformers else []


def _base_models(facts: CardFacts) -> Iterator[str]:
    """What the encoders started from, and the spaces that are connected: names on the Hub, and folders."""
    encoders = (facts.hyperparameters.get("model") or {}).get("encoders") or {}
    method = facts.hyperparameters.get("method") or {}
    sources = [entry.get("pretrained") for entry in encoders.values()]
    sources.append(_start(facts))
    sources += [method.get("first"), method.get("second")] if facts.method == "cmcr" else []
    origins = [facts.dataset.provenance, *facts.dataset.provenance.values()]
    made = [str(origin["release"]) for origin in origins if isinstance(origin, Mapping) and "release" in origin]
    # What is called without an owner there was a folder.
    sources += [name if "/" in name else f"./{name}" for name in made]
    yield from (made_of(str(source))[0] for source in sources if source)


def _start(facts: CardFacts) -> str | None:
    """What all parts started from; a run is no name on the Hub, whatever it looks like."""
    source = facts.hyperparameters.get("init_from")
    if not source or (facts.training.started_from or "").startswith("release "):
        return source
    return f"./{str(source).partition('@')[0]}"


def _called(source: str) -> str:
    """A name on the Hub; of the folder ``runs/NAME/release``: NAME."""
    if _on_the_hub(source):
        return source
    named = [part for part in Path(source).parts if part not in ("release", "/", "..", ".")]
    return named[-1] if named else source


def _on_the_hub(source: str) -> bool:
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", source)) and not Path(source).exists()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_secrets(v) for key, v in value.items() if not _SECRET_KEY.search(str(key))}
    return [_without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value
