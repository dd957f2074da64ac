"""The sections of a model card, each as Markdown; empty where there is nothing to say (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.methods.names import METHODS, MethodConfig
from mmpretrain.data.info import DatasetInfo
from mmpretrain.hub.card_facts import AdapterFacts, CardFacts, ConvertedFacts, Offered, TrainingFacts
from mmpretrain.hub.card_usage import Modalities, sentence_transformers_usage, usage
from mmpretrain.records import Score, change_cells, main_changes

UNSAID = ("", "not recorded")
PER_CLASS = "recall/"
MOST_ROWS = 16  # of scores that are shown unfolded


def introduction(facts: CardFacts, modalities: Modalities, base_models: Sequence[str]) -> str:
    """What it is, in a few lines."""
    method = METHODS.get(facts.method, MethodConfig)
    title, paper = method.title or facts.method, method.arxiv
    source = f"{title} ([arXiv:{paper}](https://arxiv.org/abs/{paper}))" if paper else title
    lines = [
        f"# {facts.name}\n",
        f"Multimodal encoders, trained contrastively with mmpretrain on {facts.dataset.title}.\n",
        f"- Modalities: {kinds(modalities)}",
        f"- Method: {source}",
    ]
    lines += [f"- Made from: {', '.join(f'`{model}`' for model in base_models)}"] * bool(base_models)
    return "\n".join([*lines, f"- License of the weights: {facts.license or 'not chosen by who trained them'}"])


def converted(facts: ConvertedFacts, modalities: Modalities) -> str:
    """What a release is that nobody trained here."""
    same = "the same weights, preprocessing and embeddings"
    if facts.connected_by is not None:
        same = f"the same weights and preprocessing, their embeddings projected into one space by {facts.connected_by}"
    return (
        f"# {facts.name}\n\nThe encoders of {facts.origin} in the form of mmpretrain: {same}. Nothing was"
        f" trained.\n\n- Modalities: {kinds(modalities)}\n- License of the weights:"
        f" {facts.license or f'that of {facts.origin}'}"
    )


def kinds(modalities: Modalities) -> str:
    """Every modality with its kind."""
    return ", ".join(f"`{name}` ({modality['kind']})" for name, modality in modalities.items())


def loading(modalities: Modalities, offered: Offered) -> str:
    """Code that opens it, here and in other libraries."""
    text = f"## How to use it\n\n```python\n{usage(modalities, offered)}```"
    if other := sentence_transformers_usage(offered):
        text += f"\n\nIn sentence-transformers:\n\n```python\n{other}```"
    if offered.native:
        text += (
            f"\n\nThe folder `native` holds the same encoders as a {offered.native} of transformers, which needs no"
            ' code of this repository: `AutoModel.from_pretrained(path, subfolder="native")`.'
        )
    return text


def lora(adapters: Sequence[AdapterFacts]) -> str:
    """What was trained of encoders with LoRA, and how peft opens their adapters."""
    if not adapters:
        return ""
    lines = [
        f"- `{a.name}`: rank {a.rank}, scaling {a.scaling:g}; {a.trained:,} trained parameters beside {a.frozen:,}"
        f" frozen ones, which are {f'those of `{a.base}`' if a.base else 'random'}"
        for a in adapters
    ]
    return (
        "## LoRA\n\nOf these encoders only adapters were trained, which are merged into the weights here:\n\n"
        + "\n".join(lines)
        + "\n\nThe folder `adapter` holds them apart, for"
        " peft:\n\n```python\nfrom peft import PeftModel\n\n"
        f'encoder = PeftModel.from_pretrained(base, f"{{path}}/adapter/{adapters[0].name}")  # base: the encoder as it'
        " was before\n```"
    )


def evaluation(facts: CardFacts, scores: Sequence[Score]) -> str:
    """All scores: the first ones of a long list open, the others and those of single classes folded."""
    if not scores:
        return ""
    held_out = facts.not_held_out is None
    heading = f"## Evaluation on the {facts.split} split" if held_out else "## Scores on data that was seen"
    notes = [] if held_out else [f"**No claim about new data:** {facts.not_held_out}."]
    if facts.rounded_to:
        notes.append(f"The scores are of the weights in float32; these are rounded to {facts.rounded_to}.")
    if any(score.low is not None for score in scores):
        notes.append("Intervals hold 95 % of resampled test samples.")
    single = [score for score in scores if score.name.startswith(PER_CLASS)]
    rest = [score for score in scores if score not in single]
    folded = [*rest[MOST_ROWS:], *single]
    parts = [heading, *notes, _table(rest[:MOST_ROWS])]
    return "\n\n".join([*parts, *([_folded("Further scores", _table(folded))] if folded else [])])


def changes(facts: CardFacts) -> str:
    """What fine-tuning changed: scores before and after."""
    rows = main_changes(facts.changes)
    if not rows:
        return ""
    how = f" (recipe {facts.recipe})" if facts.recipe else ""
    note = "The change is judged by the same samples drawn again (95 %)."
    head = "| data | score | before | after | change |\n|---|---|---|---|---|"
    lines = [f"| {'kept out' if row.general else 'own'} | {' | '.join(change_cells(row))} |" for row in rows]
    return "\n".join([f"## Before and after fine-tuning{how}\n", f"{note}\n", head, *lines])


def training(facts: TrainingFacts, dataset: DatasetInfo) -> str:
    """What it learned from, how long, and on what."""
    lines = [f"- Data: {dataset.title}"]
    lines += [f"- Source of the data: {dataset.source}"] * (dataset.source not in UNSAID)
    lines.append(f"- License of the data: {dataset.license if dataset.license not in UNSAID else 'not recorded'}")
    if dataset.classes:
        lines.append(f"- Classes: {_shortly(dataset.classes)}")
    if facts.started_from:
        lines.append(f"- Started from: {facts.started_from}")
    lines.append(f"- Samples seen: {facts.samples:,} in {facts.steps:,} optimizer steps")
    if facts.weights:
        lines.append(f"- Weights: {facts.weights}")
    if facts.hardware:
        lines.append(f"- Hardware: {facts.hardware}")
    if facts.sizes:
        lines.append(f"- Ranks: {facts.sizes}")
    if facts.samples_per_s is not None and facts.hours is not None:
        count = "1 process" if facts.world_size == 1 else f"{facts.world_size} processes"
        spent = f"{facts.hours:.3g} hours of {'all processes' if facts.sizes else count} together"
        lines.append(f"- Compute: {spent}, {facts.samples_per_s:,.0f} samples per second")
    return "## Training\n\n" + "\n".join(lines)


def limits(facts: CardFacts, modalities: Modalities) -> str:
    """What a reader must not expect."""
    lines = [f"- `{name}`: {limit}" for name, modality in modalities.items() if (limit := _limit(modality))]
    if not facts.evaluation:
        lines.append("- Nothing was evaluated when it was made.")
    elif facts.not_held_out is None:
        lines.append(f"- It was evaluated on the {facts.split} split of its own data set; other data were not tried.")
    lines.append("- Whatever is missing or one-sided in the data is so in the model; nobody looked into that.")
    return "## Limits\n\n" + "\n".join(lines)


def citation(method: str) -> str:
    """BibTeX of the method's paper."""
    known = METHODS.get(method, MethodConfig)
    if not known.arxiv:
        return ""
    entry = (
        f"@misc{{arxiv_{known.arxiv.replace('.', '_')},\n  title = {{{known.title}}},\n  eprint = {{{known.arxiv}}},\n"
        f"  archivePrefix = {{arXiv}},\n  url = {{https://arxiv.org/abs/{known.arxiv}}}\n}}"
    )
    return f"## Citation\n\n```bibtex\n{entry}\n```"


def hyperparameters(config: Mapping[str, Any]) -> str:
    """The config, folded."""
    text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    return _folded("Hyper-parameters that the method used", f"```yaml\n{text}```")


def title_of(score: Score) -> str:
    """``linear probe (left)``."""
    words = score.metric.replace("_", " ")
    return f"{words} ({score.subject})" if score.subject else words


def _table(scores: Sequence[Score]) -> str:
    intervals = any(score.low is not None for score in scores)
    columns = ["what", "score", "value", *(["95 %"] * intervals), "by chance"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for score in scores:
        cells = [title_of(score), score.name, f"{score.value:.4f}"]
        if intervals:
            cells.append("" if score.low is None or score.high is None else f"{score.low:.4f} to {score.high:.4f}")
        cells.append("" if score.chance is None else f"{score.chance:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _limit(modality: Mapping[str, Any]) -> str:
    if modality["kind"] == "text":
        return f"at most {modality['max_length']} tokens, longer texts are cut"
    if modality["kind"] == "image":
        return f"images are brought to {modality['size'][0]} x {modality['size'][1]} pixels"
    if modality["kind"] == "audio":
        return f"the first {modality['seconds']:g} seconds at {modality['sampling_rate']} Hz"
    return f"arrays of size {list(modality['size'])} as in its data"


def _shortly(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:20])
    return shown if len(classes) <= 20 else f"{shown}, and {len(classes) - 20} more"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"
