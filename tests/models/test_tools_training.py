"""Adapters of peft, transformers' Trainer and accelerate on a released model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.tools import fused_model, tool_inputs, tool_model

TASK = peft.TaskType.FEATURE_EXTRACTION
ADAPTERS: dict[str, dict[str, Any]] = {
    "names": {"target_modules": ["query", "value", "q_proj", "v_proj"]},
    "one tower": {"target_modules": r"encoders\.picture\..*(q_proj|fc1)"},
    "every linear layer": {"target_modules": "all-linear"},
    "task": {"target_modules": ["q_proj", "query"], "task_type": TASK},
}


@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize("make", [tool_model, fused_model])
def test_adapters_are_saved_opened_and_merged(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    inputs, plain = tool_inputs(), make().get_embeds(**tool_inputs())
    adapted = peft.get_peft_model(make(), peft.LoraConfig(r=4, init_lora_weights=False, **options)).eval()
    found = adapted(**inputs).embeds
    assert (found["picture"] - plain["picture"]).abs().max() > 1e-4
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(make(), tmp_path).eval()
    for model in (again, adapted.merge_and_unload()):
        for name, embed in model(**inputs).embeds.items():
            torch.testing.assert_close(embed, found[name], rtol=1e-4, atol=1e-4)


def test_adapters_by_task_take_flat_tensors() -> None:
    adapted = peft.get_peft_model(tool_model(), peft.LoraConfig(target_modules=["query"], task_type=TASK))
    inputs = tool_inputs()
    output = adapted(pixel_values=inputs["picture"]["pixel_values"], **inputs["caption"], return_loss=True)
    assert output.loss.requires_grad and set(output.embeds) == {"picture", "caption"}


class Numbers(Dataset[int]):
    """Twelve of them, from which the collator makes samples."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        return index


def collate(items: list[int]) -> dict[str, Any]:
    """As a processor does."""
    return {**tool_inputs(count=len(items), seed=items[0]), "return_loss": True}


def trainer(model: Any, folder: Path, steps: int, **options: Any) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        # Its columns are what the processor takes, not what the model takes; without labels, the model's own loss.
        remove_unused_columns=False,
        label_names=[],
        lr_scheduler_type="constant",
        disable_tqdm=True,
        use_cpu=True,
        report_to=[],
        **options,
    )
    return Trainer(model, arguments, train_dataset=Numbers(), eval_dataset=Numbers(), data_collator=collate)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_trainer_goes_on_where_it_was_stopped(tmp_path: Path, checkpointing: bool) -> None:
    whole, stopped, resumed = (tool_model(seed=seed) for seed in (0, 0, 1))
    options = {"gradient_checkpointing": checkpointing}
    run = trainer(whole, tmp_path / "whole", 4, **options)
    run.train()
    losses = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert len(losses) == 4 and len(set(losses)) == 4
    assert run.evaluate()["eval_loss"] > 0
    trainer(stopped, tmp_path / "run", 2, **options).train()
    trainer(resumed, tmp_path / "run", 4, **options).train(resume_from_checkpoint=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_saved_file_is_read_under_the_names_that_it_has(tmp_path: Path) -> None:
    model, other = tool_model(seed=0), tool_model(seed=1)
    model.save_pretrained(tmp_path)
    result = other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert not result.missing_keys and not result.unexpected_keys
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"something": torch.zeros(1)})


def test_accelerate_prepares_it() -> None:
    accelerator = Accelerator(cpu=True)
    model: MMPretrainModel = tool_model().train()
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.001))
    before = prepared(**tool_inputs(), return_loss=True).loss
    accelerator.backward(before)
    optimizer.step()
    assert prepared(**tool_inputs(), return_loss=True).loss < before
