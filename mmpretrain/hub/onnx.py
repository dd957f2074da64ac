"""The encoders of a release as ONNX, one file per modality: embeddings without Python.

    MODALITY.onnx   inputs: the encoder's tensors, named as the processor names them; any number of samples, texts and
                    sequences of any length (texts whose encoder sees padding: of the full one). outputs: ``embeds``
                    [batch, d], not normalized, and ``shared_embeds`` and ``unique_embeds`` where the model has them.
    onnx.json       what lies there: inputs, outputs, shapes, and how far ONNX Runtime's answers are from PyTorch's

What needs several modalities at once (the embedding of a fusion for all of them, a classifier) is in none.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmpretrain.embedding.spaces import OwnSpace, open_space
from mmpretrain.files import sync
from mmpretrain.models.function_mmpretrain import ModalityFunction
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.places_mmpretrain import FILLER
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, one_line

INDEX = "onnx.json"
TOLERANCE = 1e-4  # of the largest number that PyTorch gives, and of 1
NEEDS = "pip install onnx onnxscript (or this project with its extra: onnx)"
# Tensors beside the encoder's: whoever runs a file runs it for samples that have the modality.
_BESIDE = ("present",)


def export_release_onnx(release: str, folder: Path, modalities: Sequence[str] = ()) -> dict[str, Any]:
    """As :func:`export_onnx`, of a release: a folder, or an id of the Hub. Raises UnusableError for anything else."""
    space = open_space(release, torch.device("cpu"))
    if not isinstance(space, OwnSpace):
        raise UnusableError([f"{release} is no release of this project: use optimum for other models"])
    model: Any = space.model
    return export_onnx(model, space.processor, folder, modalities)


def export_onnx(
    model: MMPretrainModel, processor: MMPretrainProcessor, folder: Path, modalities: Sequence[str] = ()
) -> dict[str, Any]:
    """Write ``folder`` as above for ``modalities`` (default: all), and return the content of ``onnx.json``.

    With onnxruntime installed, every file is run on other numbers of samples than it was traced with; its answers may
    differ from the model's by at most TOLERANCE. Raises UnusableError, which names the modality, for an encoder that
    cannot be exported or answers otherwise, for an unknown modality, and where the packages are missing; ``folder``
    is then not there.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnusableError([f"ONNX files need the package {missing[0]}: {NEEDS}"])
    if unknown := sorted(set(modalities) - set(processor.modalities)):
        raise UnusableError([f"no modality {unknown[0]!r} in this release: it has {', '.join(processor.modalities)}"])
    model = model.eval()
    writing = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        files = {
            name: _export(model, processor, name, writing / f"{name}.onnx")
            for name in modalities or model.config.modalities
        }
        content = {"modalities": files, "left_out": _left_out(model)}
        (writing / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for path in [writing, *writing.iterdir()]:
            sync(path)
        writing.rename(folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return content


def example_tensors(processor: MMPretrainProcessor, name: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """What the processor makes of ``count`` made-up samples: [count, ...] each; texts of random ids and lengths."""
    rng = np.random.default_rng(seed)
    entry = processor.modalities[name]
    made = processor(**{name: [_sample(entry, rng) for _ in range(count)]})[name]
    tensors = {key: tensor for key, tensor in made.items() if key not in _BESIDE}
    if entry["kind"] == "text":
        shape = tuple(tensors["input_ids"].shape)
        lengths = rng.integers(1, shape[1] + 1, (count, 1))
        ids = rng.integers(0, len(processor.tokenizers[name]), shape)
        tensors["input_ids"] = torch.from_numpy(ids)
        tensors["attention_mask"] = torch.from_numpy((np.arange(shape[1]) < lengths).astype(np.int64))
    return tensors


def _sample(entry: Mapping[str, Any], rng: np.random.Generator) -> Any:
    kind = entry["kind"]
    if kind == "image":
        shape = [*entry["size"], entry["channels"]]
        return Image.fromarray(rng.integers(0, 256, shape, np.uint8).squeeze())
    if kind == "audio":
        rate = entry["sampling_rate"]
        return {"array": rng.uniform(-0.5, 0.5, round(rate * entry["seconds"])), "sampling_rate": rate}
    return "a" if kind == "text" else rng.standard_normal(entry["size"])


def _export(model: MMPretrainModel, processor: MMPretrainProcessor, name: str, path: Path) -> dict[str, Any]:
    """Write the file of one modality and try it; its row in ``onnx.json``."""
    examples = example_tensors(processor, name, 2)
    one = ModalityFunction(model, [name], {name: list(examples)}).eval()
    axes = {key: _axes(model, processor.modalities[name]["kind"], name, tensor) for key, tensor in examples.items()}
    try:
        with _quiet():
            program = torch.onnx.export(
                one,
                tuple(examples.values()),
                dynamo=True,
                verbose=False,
                input_names=list(examples),
                output_names=[output for _, output in one.outputs],
                dynamic_shapes=(tuple(axes.values()),),
            )
        assert program is not None
        program.save(str(path))
    except Exception as error:  # torch and onnxscript raise many of their own
        raise UnusableError([f"the encoder of {name} cannot be exported to ONNX: {one_line(error)}"]) from error
    return {
        "file": path.name,
        "kind": processor.modalities[name]["kind"],
        "inputs": {key: _described(tensor, axes[key]) for key, tensor in examples.items()},
        "outputs": [output for _, output in one.outputs],
        "largest_difference": _largest_difference(one, processor, name, path),
    }


def _axes(model: MMPretrainModel, kind: str, name: str, tensor: Tensor) -> dict[int, str]:
    """Which dimensions of an input may change: the samples, and the places of a text or sequence."""
    fixed = name in model.config.encoders and model.config.encoders[name]["pool"] == "flatten"
    # Where padding is seen a runtime refuses other lengths; it would cut longer texts without a word.
    fixed = fixed or FILLER in (model.config.places or {}).get(name, {})
    return {0: "batch", 1: "length"} if kind in ("text", "sequence") and tensor.ndim > 1 and not fixed else {0: "batch"}


def _described(tensor: Tensor, axes: Mapping[int, str]) -> dict[str, Any]:
    shape = [axes.get(i, size) for i, size in enumerate(tensor.shape)]
    return {"shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}


def _largest_difference(one: ModalityFunction, processor: MMPretrainProcessor, name: str, path: Path) -> float | None:
    """Between ONNX Runtime and the model, of 1 and of 5 samples of other lengths than before; None: it is not there."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 5):
        tensors = example_tensors(processor, name, count, seed=count)
        axes = [_axes(one.model, processor.modalities[name]["kind"], name, tensor) for tensor in tensors.values()]
        if any("length" in axis.values() for axis in axes):
            length = max(1, next(iter(tensors.values())).shape[1] * count // 6)
            tensors = {key: t[:, :length].contiguous() for key, t in tensors.items()}
        with torch.no_grad():
            right = one(*tensors.values())
        answers = session.run(None, {key: t.numpy() for key, t in tensors.items()})
        for expected, found in zip(right, answers, strict=True):
            scale = max(1.0, float(expected.abs().max()))
            worst = max(worst, float(np.abs(found - expected.numpy()).max()) / scale)
    if not worst <= TOLERANCE:
        raise UnusableError([f"the ONNX file of {name} answers otherwise than the model: off by {worst:.2g}"])
    return worst


def _left_out(model: MMPretrainModel) -> list[str]:
    together = {"fused_embeds": model.fusion is not None, "logits": model.classifier is not None}
    return [output for output, made in together.items() if made]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of operators that nobody asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
