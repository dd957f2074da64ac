"""What a fine-tuning starts from: a release, the release of a run, a model of transformers, or single encoders.

No torch here: the small JSON files of a model say what is needed, and those of the Hub are fetched by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.config.kind import Kind
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.methods.names import METHODS
from mmpretrain.release_folder import release_name
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import listed, shortened

CONFIG, PROCESSOR = "config.json", "processor_config.json"
RELEASE = "mmpretrain"  # the model_type of a release
PAIR = "name one for each modality, as --encoder image=MODEL --encoder caption=MODEL"


class Form(StrEnum):
    """What encoders start from."""

    release = "release"
    """A release of this project, whole."""

    published = "published"
    """A CLIP, SigLIP or CLAP of transformers, which has to be converted."""

    encoders = "encoders"
    """Single encoders, which have nothing in common yet."""


class StartError(ValueError):
    """What was named cannot be fine-tuned; the message says why, and what can."""


@dataclass(frozen=True)
class Start:
    """What a run is fine-tuned from.

    source: folder or Hub id that encoders are taken from; of single encoders: their names. origin: what that was made
    of, if it was. name: part of the run's name. model: the content of config.json. entries: modality -> its entry in
    the processor; of single encoders what is known of it. sources: modality -> what its encoder is taken from. method:
    as the model was trained; settings: what its run set of it.
    """

    form: Form
    source: str
    name: str
    revision: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    method: str = "clip"
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    @property
    def called(self) -> str:
        """As messages call it: what the user named, which may have been converted since."""
        return self.origin or self.source

    @property
    def kinds(self) -> dict[str, Kind]:
        """Modality -> its kind, as far as it is known."""
        return {name: Kind(entry["kind"]) for name, entry in self.entries.items() if "kind" in entry}


def find_start(model: str, revision: str | None = None) -> Start:
    """What ``model`` is: a release, a run, or a model of transformers. Raises StartError."""
    folder = Path(model)
    if RunFolder(folder).config.exists() and not (folder / CONFIG).exists():
        return _of_run(folder)
    config = read_config(model, revision)
    if config.get("model_type") == RELEASE:
        if revision:
            raise StartError(
                f"--revision is for models that are converted, and {model} is a release: fetch that revision,"
                f" `hf download {model} --revision {revision} --local-dir {folder.name}`, and name the folder"
            )
        return opened_release(model, None, config)
    towers = [kind for kind in ("vision", "audio") if f"{kind}_config" in config]
    if len(towers) == 1 and "text_config" in config:
        name = release_name(model).rpartition("/")[2]
        return Start(Form.published, model, name, revision, config)
    known = config.get("model_type", "model of an unknown kind")
    raise StartError(f"{model} is a {known}, one encoder and not a pair: {PAIR}")


def of_encoders(encoders: Mapping[str, str]) -> Start:
    """Single encoders by modality: models of transformers, or releases of which a part is taken. Raises StartError."""
    if len(encoders) < 2:
        raise StartError(f"--encoder names {listed(encoders) or 'nothing'} alone: {PAIR}")
    entries = {name: _alone(name, source) for name, source in encoders.items()}
    name = "-".join(release_name(source).rpartition("/")[2] for source in encoders.values())
    return Start(Form.encoders, " and ".join(encoders.values()), name, entries=entries, sources=dict(encoders))


def opened_release(source: str, revision: str | None, config: Mapping[str, Any] | None = None) -> Start:
    """A release: folder or Hub id. Raises StartError."""
    config = config or read_config(source, revision)
    if config.get("connection"):
        raise StartError(f"{source} connects two other releases: fine-tune one of these")
    entries = _read_json(source, PROCESSOR, revision).get("modalities")
    modalities = config.get("modalities") or []
    if not isinstance(entries, dict) or not all(isinstance(entries.get(name), dict) for name in modalities):
        raise StartError(f"{source}: {PROCESSOR} does not say what its modalities are: export the release again")
    method = str(config.get("method") or "clip")
    return Start(
        Form.release,
        source,
        release_name(source).rpartition("/")[2],
        revision,
        config,
        {name: entries[name] for name in modalities},
        dict.fromkeys(modalities, source),
        method if method in METHODS else "clip",
    )


def read_config(model: str, revision: str | None) -> dict[str, Any]:
    """The config.json of a folder or of a repository on the Hub. Raises StartError."""
    return _read_json(model, CONFIG, revision)


def _of_run(folder: Path) -> Start:
    run = RunFolder(folder)
    if not (run.release / CONFIG).exists():
        raise StartError(
            f"{folder} has no release yet: wait for its end, or make one of a checkpoint,"
            f" `mmpretrain export {folder} --to FOLDER`"
        )
    start = opened_release(str(run.release), None)
    try:
        method = load_config(run.config).method
    except ConfigError:
        return start  # of another version: then the release alone counts
    return replace(start, settings=_changed(method))


def _changed(method: MethodConfig) -> dict[str, Any]:
    """What a run set of its method; what depends on its batch is of that run alone."""
    usual, given = vars(type(method)()), vars(method)
    return {key: value for key, value in given.items() if value != usual[key] and key not in ("name", "mix_group")}


def _alone(name: str, source: str) -> dict[str, Any]:
    """What is known of the inputs of a single encoder."""
    config = read_config(source, None)
    if config.get("model_type") == RELEASE:
        start = opened_release(source, None, config)
        if name not in start.entries:
            raise StartError(f"--encoder {name}={source}: that release has {listed(start.entries)}, not {name!r}")
        return dict(start.entries[name])
    size, positions = config.get("image_size"), config.get("max_position_embeddings")
    if isinstance(size, (int, list)):
        sides = size if isinstance(size, list) else [size, size]
        return {"kind": "image", "size": sides, "channels": config.get("num_channels", 3)}
    return {"max_length": min(77, positions)} if isinstance(positions, int) else {}


def _read_json(model: str, name: str, revision: str | None) -> dict[str, Any]:
    path = Path(model) / name
    if Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        if not path.is_file():
            what = "there is no such folder" if not Path(model).exists() else f"it has no {name}"
            raise StartError(f"{model}: {what}; name a release, a run, or a model of transformers, or one on the Hub")
    else:
        path = _fetched(model, name, revision)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"{path} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise StartError(f"{path} is damaged: it holds no mapping")
    return content


def _fetched(model: str, name: str, revision: str | None) -> Path:
    """One file of a repository on the Hub. Raises StartError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except Exception as error:  # of the network, the Hub and its client, each in its own way
        cause = shortened((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
        raise StartError(
            f"{model} is no folder here, and {name} of that name on the Hub cannot be had: {cause}"
        ) from None
