"""The end of ``make demo``: open the release where this package does not exist, then sum up the run.

python -m mmpretrain.summary.demo runs/demo
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder
from mmpretrain.summary.summary import PICTURE, summarize

# Runs isolated from this package: what it prints, any user of the release would see.
OPEN_RELEASE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mmpretrain", "launcher", "shards"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModel, AutoProcessor

folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
texts = ["a bold zero", "a narrow one leaning right", "a wide seven"]
with torch.no_grad():
    embeds = model(**processor(caption=texts)).embeds["caption"]
print("AutoModel opened the release:", type(model).__name__, "with", f"{model.num_parameters():,}", "parameters;")
print("3 captions became embeddings of shape", tuple(embeds.shape))
"""


def main() -> None:
    """Open the release in a fresh interpreter and print the summary of the run."""
    folder = RunFolder(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": elsewhere}
        command = [sys.executable, "-I", "-c", OPEN_RELEASE, str(folder.release.resolve())]
        opened = subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True)
    if opened.returncode:
        sys.exit(f"the release {folder.release} could not be opened:\n{opened.stderr}")
    if problems := verify_release(folder.release):
        sys.exit("\n".join(problems))
    print(opened.stdout)
    print(summarize(folder.path))
    print(f"Picture: {folder.path / PICTURE}")


if __name__ == "__main__":
    main()
