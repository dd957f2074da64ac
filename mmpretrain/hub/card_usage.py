"""The code on a model card: it runs as it stands, inside the folder (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.config.kind import Kind
from mmpretrain.hub.card_facts import Offered

Modalities = Mapping[str, Mapping[str, Any]]


def usage(modalities: Modalities, offered: Offered) -> str:
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
        *_answers(list(modalities), offered),
    ]
    return "\n".join(lines) + "\n"


def sentence_transformers_usage(offered: Offered) -> str:
    """The same by sentence-transformers, for a kind that it knows; empty where it opens nothing."""
    if not offered.sentence_transformers:
        return ""
    sample = {
        "text": '"a text"',
        "image": 'Image.new("RGB", (64, 64))',
        "audio": '{"array": np.zeros(16000), "sampling_rate": 16000}',
    }
    kind = offered.sentence_transformers[0]
    lines = [Kind(kind).row.imports] * bool(Kind(kind).row.imports)
    lines += [
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer(".", trust_remote_code=True)',
        f"model.encode([{sample[kind]}])  # [1, width]",
    ]
    return "\n".join(lines) + "\n"


def _answers(names: list[str], offered: Offered) -> list[str]:
    lines = []
    if offered.fused:
        lines.append("output.fused_embeds  # [batch, width], of all modalities that were passed")
    if offered.parts:
        lines.append("output.shared_embeds, output.unique_embeds  # modality -> [batch, ...]")
    if offered.similarity and len(names) > 1:
        means = {"softmax": "over the second one's samples", "sigmoid": "of each pair alone"}[offered.similarity]
        lines.append(f'model.pair_probabilities(output, "{names[0]}", "{names[1]}")  # {means}')
    return lines + ["output.logits  # [batch, classes], if every modality was passed"] * offered.classifier


def _example(modality: Mapping[str, Any]) -> str:
    return Kind(modality["kind"]).row.example(modality)
