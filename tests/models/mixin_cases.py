"""transformers' own tests of models, run on ours by test_transformers_mixin.py.

Not collected here: ``tests`` is transformers' package in the process that runs this, and the file lies in a copy.
"""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

import torch

from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

# Of transformers' sdist.
from tests.test_configuration_common import ConfigTester  # type: ignore
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask  # type: ignore

FOLDER = Path(os.environ["MIXIN_FOLDER"])
SKIPS: dict[str, str] = json.loads((FOLDER / "skips.json").read_text())
COUNT, LENGTH, VOCABULARY = 4, 7, 30


class Tester:
    """What the mixin asks of a model's tester. name: of the folder with the config."""

    __test__ = False
    is_training = False
    batch_size, seq_length = COUNT, LENGTH
    num_hidden_layers = 2

    def __init__(self, parent: unittest.TestCase, name: str) -> None:
        self.parent, self.name = parent, name

    def get_config(self) -> MMPretrainConfig:
        """Of a small model without dropout."""
        return MMPretrainConfig.from_pretrained(FOLDER / self.name)

    def prepare_config_and_inputs_for_common(self) -> tuple[MMPretrainConfig, dict[str, Any]]:
        """The config, and flat tensors."""
        return self.get_config(), {
            "pixel_values": floats_tensor([COUNT, 1, 8, 4]),
            "input_ids": ids_tensor([COUNT, LENGTH], VOCABULARY - 1) + 1,
            "attention_mask": random_attention_mask([COUNT, LENGTH]).flip(1).to(torch.long),
        }


class Cases(ModelTesterMixin):
    """name: of the folder with the config."""

    name = ""
    all_model_classes = (MMPretrainModel,)
    test_resize_embeddings = True
    has_attentions = False
    _is_composite = True

    def setUp(self) -> None:
        """As the mixin wants it; what is in the table is skipped with its reason."""
        method = self._testMethodName
        reason = next((why for start, why in SKIPS.items() if method.startswith(start)), None)
        if reason:
            self.skipTest(reason)
        self.model_tester = Tester(self, self.name)


class DualTest(Cases, unittest.TestCase):
    """An image and a text side by side, as CLIP."""

    name = "dual"

    def test_config(self) -> None:
        """The config alone."""
        ConfigTester(
            self, config_class=MMPretrainConfig, has_text_modality=False, common_properties=[]
        ).run_common_tests()


class FusionTest(Cases, unittest.TestCase):
    """The same under a fusion, as CoMM."""

    name = "fusion"
