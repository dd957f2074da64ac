"""Makes transformers' Auto classes know this project's, to open releases without their shipped code (no torch here)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_AUTO = "transformers.models.auto"
_OURS = "mmpretrain.models"
# Auto module -> ours, which is registered with it once both are loaded.
_PAIRS = {
    f"{_AUTO}.configuration_auto": f"{_OURS}.configuration_mmpretrain",
    f"{_AUTO}.modeling_auto": f"{_OURS}.modeling_mmpretrain",
    f"{_AUTO}.image_processing_auto": f"{_OURS}.image_processing_mmpretrain",
    f"{_AUTO}.feature_extraction_auto": f"{_OURS}.feature_extraction_mmpretrain",
    f"{_AUTO}.processing_auto": f"{_OURS}.processing_mmpretrain",
}
_loaded: set[str] = set()


def register_when_loaded() -> None:
    """Register our classes with every Auto class that is loaded, and with the others as soon as they are.

    transformers and torch take seconds to import, so a process that needs neither must not pay for them here.
    """
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
    for name in [*_PAIRS, *_PAIRS.values()]:
        if name in sys.modules:
            _after(name)


class _AfterImport(MetaPathFinder):
    """Runs :func:`_after` when one of the paired modules has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary spec, with a loader that reports when it has finished; None for all other modules."""
        if fullname not in _PAIRS and fullname not in _PAIRS.values():
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then_after(spec.loader.exec_module, fullname)  # type: ignore
        return spec


def _then_after(execute: Callable[[ModuleType], None], name: str) -> Callable[[ModuleType], None]:
    def execute_and_report(module: ModuleType) -> None:
        execute(module)
        _after(name)

    return execute_and_report


def _after(name: str) -> None:
    """``name`` is completely loaded: register what is now possible."""
    _loaded.add(name)
    for auto, ours in _PAIRS.items():
        if name not in (auto, ours) or auto not in _loaded:
            continue
        # Ours may be the very import that made transformers load its Auto module; it then reports when it is done.
        if ours not in sys.modules:
            importlib.import_module(ours)
        if ours in _loaded:
            _register(auto)


def _register(auto: str) -> None:
    config = importlib.import_module(f"{_OURS}.configuration_mmpretrain").MMPretrainConfig
    module, ours = sys.modules[auto], sys.modules[_PAIRS[auto]]
    if auto.endswith("configuration_auto"):
        module.AutoConfig.register(config.model_type, config, exist_ok=True)
    elif auto.endswith("modeling_auto"):
        module.AutoModel.register(config, ours.MMPretrainModel, exist_ok=True)
        pipeline = module.AutoModelForZeroShotImageClassification
        pipeline.register(config, ours.MMPretrainForZeroShotImageClassification, exist_ok=True)
    elif auto.endswith("image_processing_auto"):
        # The same for both of transformers' ways to work on pixels: ours is a third.
        forms = dict.fromkeys(("torchvision", "pil"), ours.MMPretrainImageProcessor)
        module.AutoImageProcessor.register(config, image_processor_classes=forms, exist_ok=True)
    elif auto.endswith("feature_extraction_auto"):
        module.AutoFeatureExtractor.register(config, ours.MMPretrainFeatureExtractor, exist_ok=True)
    else:
        module.AutoProcessor.register(config, ours.MMPretrainProcessor, exist_ok=True)
