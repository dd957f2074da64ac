"""Records as event files that TensorBoard shows.

They are written by tensorboard's own record writer and messages alone: its EventFileWriter, and torch's, import all of
TensorFlow where that is installed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from mmpretrain.config.compose import config_text
from mmpretrain.config.root import Config
from mmpretrain.records import stands_beside
from mmpretrain.words import without_secrets

# Figures without a group of their own; TensorBoard shows a group of charts for each first word of the names.
GROUPS = {
    "speed": ("samples_per_s", "data_wait_s", "data_wait_max_s", "tflops_per_s", "mfu", "memory_gib"),
    "training": ("scale", "grad_norm", "lr", "epoch"),
}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
_LEFT_OUT = ("step", "samples", "flops_per_sample")  # known from the step, or the same all the time


class TensorBoard:
    """One event file per process, in a folder of the run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)  # whoever watches sees every record at once
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))

    def start(self, done: int, config: Config) -> None:
        """Later events of earlier files are hidden; the config is shown as text."""
        self._write(Event(step=done + 1 if done else 0, session_log=SessionLog(status=SessionLog.START)))
        text = without_secrets(config_text(config))
        self._write(Event(step=done, summary=Summary(value=[_text("config", f"```yaml\n{text}```")])))

    def log(self, record: Mapping[str, Any]) -> None:
        """One event with all numbers."""
        numbers = {tag(name): value for name, value in record.items() if name not in _LEFT_OUT}
        self._scalars(record["step"], numbers)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """One event with the picture."""
        width, height = Image.open(BytesIO(png)).size
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=picture)])))

    def flush(self) -> None:
        """Bring the events to the disk."""
        os.fsync(self._file.fileno())

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """The final scores as points of their own, without chance and intervals."""
        self._scalars(
            step, {f"final/{name}": value for name, value in scores.items() if not stands_beside(name, scores)}
        )

    def complete(self) -> None:
        """Close the file."""
        self.flush()
        self._file.close()

    def _scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def tag(name: str) -> str:
    """Under which name, and so in which group, a number is shown."""
    if name == "loss":
        return "loss/total"
    if name.startswith("lr/"):
        return f"training/{name}"
    return f"{_GROUP_OF[name]}/{name}" if name in _GROUP_OF else name


def _text(name: str, text: str) -> Summary.Value:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    return Summary.Value(tag=name, metadata=metadata, tensor=tensor)
