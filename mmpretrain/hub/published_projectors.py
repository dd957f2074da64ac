"""Projectors that the authors of C-MCR published (arXiv 2305.14381), around two models: a connection without training.

Their file is a state dict of two heads, ``Head_A`` and ``Head_B``. A head of CLAP-CLIP is ``net1`` (Linear, batch norm)
and ``net2`` (the same again); one of ULIP-CLIP is ``net`` alone. Head_A is CLAP's in the former and CLIP's in the
latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmpretrain.assembly.build import build_model
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.cmcr import PARTNER, SHARED
from mmpretrain.config.methods.names import CmcrConfig
from mmpretrain.config.model import ConnectedSpace, ModelConfig, ProjectorForm, ProjectorsConfig
from mmpretrain.config.root import Config
from mmpretrain.hub.card_facts import ConvertedFacts
from mmpretrain.hub.export import export_release
from mmpretrain.methods.cmcr_release import release_problems, with_spaces
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError

HEADS = ("Head_A", "Head_B")
LAYERS = {
    ProjectorForm.two_layer: {"net1.0": 0, "net1.1": 1, "net2.0": 3, "net2.1": 4},
    ProjectorForm.half: {"net.0": 0, "net.1": 1},
}
USUAL_HEAD_A = {ProjectorForm.two_layer: ConnectedSpace.second, ProjectorForm.half: ConnectedSpace.first}
MOST_BYTES = 1 << 30  # of a file; the published ones have 2 and 9 MB


def connect_published(
    first: Path, second: Path, projectors: Path, folder: Path, head_a: ConnectedSpace | None = None
) -> MMPretrainModel:
    """Write ``folder``: the release of both models with these projectors. Returns its model, without weights.

    first, second: a release or a model of transformers each, as of ``method.first``; a modality of both goes through
    the first. projectors: ``.safetensors``, or a file of torch, of which tensors alone are read. head_a: the space that
    Head_A projects; None: as published, with CLIP first: the second of two layers, the first of one.
    Raises UnusableError for files of another form, and for models that do not fit them.
    """
    state = _read(projectors)
    form, spaces = _form(projectors, state), list(ConnectedSpace)
    a = head_a or USUAL_HEAD_A[form]
    heads = {a: HEADS[0], next(space for space in spaces if space is not a): HEADS[1]}
    renamed = {space: _renamed(projectors, state, head, form) for space, head in heads.items()}
    config = _config(first, second, form, renamed)
    if problems := release_problems(config):
        raise UnusableError(problems)
    whole = {f"connection.projectors.{s.value}.{key}": t for s, part in renamed.items() for key, t in part.items()}
    trained = build_model(config)
    _fill(projectors, trained, whole)
    shipped = with_spaces(config, trained, whole)
    origin = " and ".join(path.resolve().name for path in (first, second))
    card = ConvertedFacts(folder.resolve().name, origin, connected_by=projectors.name)
    export_release(shipped.model, shipped.state, shipped.processor, folder, card, native=False)
    return shipped.model


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict of tensors, and nothing else: no code of the file runs. Raises UnusableError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UnusableError([f"{path} has {path.stat().st_size} bytes: projectors have a few million numbers"])
        safe = path.suffix == ".safetensors"
        found: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except UnusableError:
        raise
    except OSError as error:
        raise UnusableError([f"{path} cannot be read ({error.strerror or error})"]) from None
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UnusableError([f"{path} holds no plain tensors ({str(error).splitlines()[0]})"]) from None
    except Exception as error:  # the unpickler of tensors refuses what else there is by errors of its own
        raise UnusableError([f"{path} holds more than tensors, which is not read ({type(error).__name__})"]) from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UnusableError([f"{path} is no state dict of tensors"])
    return dict(found)


def _form(path: Path, state: Mapping[str, Tensor]) -> ProjectorForm:
    for form, layers in LAYERS.items():
        if all(f"{head}.{layer}.weight" in state for head in HEADS for layer in layers):
            return form
    raise UnusableError(
        [
            f"{path} holds {', '.join(sorted(state)[:4])}, ...: projectors of C-MCR are called Head_A.net1.0.weight or"
            " Head_A.net.0.weight"
        ]
    )


def _renamed(path: Path, state: Mapping[str, Tensor], head: str, form: ProjectorForm) -> dict[str, Tensor]:
    """A head's tensors as a projector of this project calls them. Raises UnusableError for tensors beside them."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name, _, rest = key.partition(".")
        layer, _, what = rest.rpartition(".")
        if name not in HEADS or layer not in LAYERS[form]:
            raise UnusableError([f"{path} holds {key!r}, which is no part of the two heads of C-MCR"])
        if name == head:
            found[f"layers.{LAYERS[form][layer]}.{what}"] = tensor
    return found


def _config(
    first: Path, second: Path, form: ProjectorForm, parts: Mapping[ConnectedSpace, Mapping[str, Tensor]]
) -> Config:
    """Of a connection as if it had been trained here."""
    widths = {space: part["layers.0.weight"].shape[1] for space, part in parts.items()}
    last = max(LAYERS[form].values()) - 1
    new = {int(part[f"layers.{last}.weight"].shape[0]) for part in parts.values()}
    hidden = {int(part["layers.0.weight"].shape[0]) for part in parts.values()}
    if len(new) > 1 or len(hidden) > 1:
        raise UnusableError([f"the heads project into {sorted(new)} dimensions by layers of {sorted(hidden)}"])
    modalities = {
        names[space]: ModalityConfig(Kind.vector, [widths[space]])
        for space in ConnectedSpace
        for names in (SHARED, PARTNER)
    }
    middle = hidden.pop() if form is ProjectorForm.two_layer else None
    return Config(
        method=CmcrConfig(first=str(first), second=str(second)),
        data=DataConfig("published", "nowhere", modalities=modalities),
        model=ModelConfig(projectors=ProjectorsConfig(form, hidden=middle, width=new.pop())),
    )


def _fill(path: Path, model: MMPretrainModel, state: Mapping[str, Tensor]) -> None:
    """Raises UnusableError for tensors that are missing, too many, or of other shapes."""
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UnusableError([f"{path} does not fit: {' '.join(str(error).split())[:500]}"]) from None
