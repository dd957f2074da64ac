"""``import mmpretrain`` is light, and makes the Auto classes know ours whatever is imported first."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.assembly.build import build_processor
from tests.models.small import fresh_interpreter, small_config, small_model

pytestmark = pytest.mark.processes

OPEN = """
from transformers import AutoConfig, AutoModel, AutoProcessor
opened = [kind.from_pretrained(sys.argv[1]) for kind in (AutoConfig, AutoModel, AutoProcessor)]
assert [type(x).__module__.split(".")[0] for x in opened] == ["mmpretrain"] * 3, opened
"""


def test_import_is_light_and_quick(tmp_path: Path) -> None:
    code = """
import time
start = time.process_time()
import mmpretrain
assert time.process_time() - start < 0.2
assert not {"torch", "transformers", "numpy", "omegaconf"} & set(sys.modules)
"""
    fresh_interpreter(code, tmp_path, ours=True)


def test_shipped_parts_do_not_load_what_needs_them(tmp_path: Path) -> None:
    code = """
import mmpretrain.models.heads_mmpretrain
import mmpretrain.models.inputs_mmpretrain
import mmpretrain.models.encoders_mmpretrain
assert "transformers.models.auto.modeling_auto" not in sys.modules
assert "mmpretrain.models.modeling_mmpretrain" not in sys.modules
"""
    fresh_interpreter(code, tmp_path, ours=True)


@pytest.mark.parametrize(
    "first",
    [
        "import mmpretrain",
        "from transformers import AutoModel, AutoProcessor, AutoConfig; import mmpretrain",
        pytest.param("import mmpretrain.models.modeling_mmpretrain", marks=pytest.mark.slow),
        pytest.param("from mmpretrain.models import processing_mmpretrain", marks=pytest.mark.slow),
    ],
)
def test_releases_open_without_trusting_their_code(tmp_path: Path, first: str) -> None:
    small_model().save_pretrained(tmp_path / "release")
    build_processor(small_config()).save_pretrained(tmp_path / "release")
    fresh_interpreter(first + OPEN, tmp_path, str(tmp_path / "release"), ours=True)
