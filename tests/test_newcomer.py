"""A newcomer's way with the wheel alone: train, evaluate, push, and open the model by its name on the Hub, everywhere.

The Hub is one on loopback. Every step is a process of its own, with nothing of the clone; the last ones have not even
this package. What they make of the same samples is compared, and the table of differences is printed.
"""

# ruff: noqa: F811 - fixtures of another file are arguments here

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.hub.server import HubServer
from tests.test_installed import CLEAN, away, environment, run, sources, wheel  # noqa: F401 - fixtures

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN, NAME = "hf_" + "n" * 30, "lab/digits"
PAIR = ("method=clip", "data=digits", "data.modalities.right=null", "model.encoders.right=null", "run.license=mit")
CLOSE = 1e-4  # of an embedding's length, between kernels of different libraries

SAMPLES = """
import numpy as np, sys
from PIL import Image
texts = ["a bold seven leaning right", "a light wide four"]
images = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 4), np.uint8)) for seed in (0, 1)]
def tell(**found):
    np.savez(sys.argv[1], **found)
"""
OPENERS = {
    "AutoModel, by name on the Hub": """
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("lab/digits", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("lab/digits", trust_remote_code=True)
output = model(**processor(left=images, caption=texts))
tell(left=output.embeds["left"].detach().numpy(), caption=output.embeds["caption"].detach().numpy())
""",
    "AutoModel with keywords of transformers": """
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("lab/digits", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("lab/digits", trust_remote_code=True)
left = model.get_image_features(**processor(images=images, return_tensors="pt"))
caption = model.get_text_features(**processor(text=texts, return_tensors="pt", padding=True))
tell(left=left.pooler_output.detach().numpy(), caption=caption.pooler_output.detach().numpy())
""",
    "AutoTokenizer and AutoImageProcessor": """
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
model = AutoModel.from_pretrained("lab/digits", trust_remote_code=True)
pixels = AutoImageProcessor.from_pretrained("lab/digits", trust_remote_code=True)(images, return_tensors="pt")
tokens = AutoTokenizer.from_pretrained("lab/digits")(texts, return_tensors="pt", padding=True)
output = model(**pixels, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
tell(left=output.image_embeds.detach().numpy(), caption=output.text_embeds.detach().numpy())
""",
    "sentence-transformers": """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("lab/digits", trust_remote_code=True)
tell(left=model.encode(images), caption=model.encode(texts))
""",
    "ONNX": """
import onnxruntime
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained("lab/digits", trust_remote_code=True)
found = {}
for name, items in (("left", images), ("caption", texts)):
    session = onnxruntime.InferenceSession(f"onnx/{name}.onnx")
    wanted = [given.name for given in session.get_inputs()]
    tensors = processor(**{name: items})[name]
    found[name] = session.run(None, {key: tensors[key].numpy() for key in wanted})[0]
tell(**found)
""",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A Hub to which the newcomer may write."""
    with HubServer({TOKEN: "newcomer"}) as server:
        yield server


def run_at(hub: HubServer, command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that knows the Hub on loopback, and caches of its own."""
    known = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": str(cwd / "hf")}
    environment = {name: value for name, value in CLEAN.items() if name != "HF_HUB_OFFLINE"} | known
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_what_was_trained_is_the_same_wherever_it_is_opened(
    environment: Path,
    away: Path,
    hub: HubServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mmpretrain = environment / "bin" / "mmpretrain"
    trained = run([mmpretrain, "train", "--cluster=local", *PAIR, "train.samples=2048", "run.name=digits"], away)
    assert trained.returncode == 0, trained.stdout[-2000:] + trained.stderr[-2000:]
    release = "runs/digits/release"
    scores = run([mmpretrain, "evaluate", release, "--data", "data/digits", "--json"], away)
    assert scores.returncode == 0, scores.stdout[-2000:] + scores.stderr[-2000:]
    assert "retrieval/left->caption/recall@1" in scores.stdout

    pushed = run_at(hub, [mmpretrain, "push", release, NAME], away)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    assert TOKEN not in pushed.stdout + pushed.stderr
    exported = run([mmpretrain, "onnx", release, "--to", "onnx"], away)
    assert exported.returncode == 0, exported.stdout[-2000:] + exported.stderr[-2000:]

    found = {name: _embeddings(hub, away, number, code) for number, (name, code) in enumerate(OPENERS.items())}
    first = next(iter(found.values()))
    lines = []
    for name, embeds in found.items():
        off = {key: float(np.abs(embeds[key] - rows).max() / np.abs(rows).max()) for key, rows in first.items()}
        lines.append(f"{name:45} {off['left']:.1e} {off['caption']:.1e}")
        assert max(off.values()) < CLOSE, lines[-1]
    with capsys.disabled():
        print("\nlargest difference from the first (relative): left, caption", *lines, sep="\n")


def _embeddings(hub: HubServer, cwd: Path, number: int, code: str) -> dict[str, np.ndarray]:
    """What a process without this package makes of the samples."""
    blocked = "import sys; sys.modules.update(mmpretrain=None)\n"
    script, out = cwd / f"open{number}.py", cwd / f"found{number}.npz"
    script.write_text(blocked + SAMPLES + code, encoding="utf-8")
    done = run_at(hub, [sys.executable, "-I", script, out], cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


def test_the_whole_card_is_true(environment: Path, away: Path) -> None:
    card = (away / "runs/digits/release/README.md").read_text(encoding="utf-8")
    assert "license: mit" in card and "## Evaluation on the test split" in card and str(away) not in card
    assert json.loads((away / "runs/digits/evaluation.json").read_text()) and os.path.sep not in card.split("\n")[0]
