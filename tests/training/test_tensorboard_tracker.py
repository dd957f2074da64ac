"""Event files as TensorBoard itself reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.compose import compose
from tests.training.small_picture import png


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mmpretrain.training.tensorboard_tracker import TensorBoard

    config = compose(["data=digits", "data.path=https://me:secret@host/x"])
    first = TensorBoard(tmp_path)
    first.start(0, config)
    for step in (1, 2, 3):
        first.log({"step": step, "loss": float(step), "loss/contrastive": 1.0, "lr": 0.1, "eval/test/a->b": 0.5})
    first.picture(2, "retrieval", png())
    again = TensorBoard(tmp_path)  # killed; goes on from the checkpoint of step 2
    again.start(2, config)
    again.log({"step": 3, "loss": 30.0})
    again.conclude(3, {"knn/accuracy": 0.25, "knn/accuracy/chance": 0.1})
    again.complete()
    seen = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss/total")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [event.step for event in seen.Scalars("training/lr")] == [1, 2]
    assert [event.value for event in seen.Scalars("final/knn/accuracy")] == [0.25]
    assert "final/knn/accuracy/chance" not in seen.Tags()["scalars"]
    (picture,) = seen.Images("retrieval")
    assert (picture.step, picture.width, picture.height, picture.encoded_image_string) == (2, 5, 3, png())
    text = seen.Tensors("config/text_summary" if "config/text_summary" in seen.Tags()["tensors"] else "config")
    shown = text[0].tensor_proto.string_val[0].decode()
    assert "name: clip" in shown and "secret" not in shown
