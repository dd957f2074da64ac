"""Graphs of a released model: torch.compile, and torch.export with any number of samples and any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.tools import fused_model, tool_inputs, tool_model

ALL = ("picture", "caption", "genes", "steps")
BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=16)
OTHERS = [(3, 7), (5, 9), (2, 16)]  # samples, places


def axes(name: str) -> dict[int, Any]:
    return {0: BATCH, 1: LENGTH} if name in ("caption", "steps") else {0: BATCH}


def flat(inputs: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: tensor for tensors in inputs.values() for key, tensor in tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize("make", [tool_model, fused_model])
def test_compiled_without_a_break_it_gives_the_same(make: Any) -> None:
    torch._dynamo.reset()
    model = make(*ALL)
    # The graph is what may break; what a backend makes of it needs a compiler.
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for count, length in OTHERS:
        inputs = tool_inputs(*ALL, count=count, length=length)
        found, right = compiled(**inputs).embeds, model.get_embeds(**inputs)
        for name, embed in right.items():
            torch.testing.assert_close(found[name], embed)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_exported_by_flat_names_it_takes_any_batch(strict: bool) -> None:
    model = tool_model()
    shapes = {"pixel_values": {0: BATCH}, "input_ids": {0: BATCH, 1: LENGTH}, "attention_mask": {0: BATCH, 1: LENGTH}}
    program = torch.export.export(model, (), kwargs=flat(tool_inputs()), dynamic_shapes=shapes, strict=strict).module()
    for count, length in OTHERS:
        inputs = flat(tool_inputs(count=count, length=length))
        found, right = program(**inputs), model(**inputs)
        torch.testing.assert_close(found.logits_per, right.logits_per)


@pytest.mark.parametrize("make", [tool_model, fused_model])
def test_exported_as_a_function_it_takes_any_batch(make: Any) -> None:
    function = make(*ALL).as_function()
    assert function.inputs[1:3] == [("caption", "input_ids"), ("caption", "attention_mask")]
    arguments = function.arguments(tool_inputs(*ALL))
    shapes = (tuple(axes(name) for name, _ in function.inputs),)
    program = torch.export.export(function, arguments, dynamic_shapes=shapes).module()
    for count, length in OTHERS:
        arguments = function.arguments(tool_inputs(*ALL, count=count, length=length))
        for found, right in zip(program(*arguments), function(*arguments), strict=True):
            torch.testing.assert_close(found, right)


def test_unknown_modality_of_a_function_is_named() -> None:
    with pytest.raises(ValueError, match="unknown modality 'sound': this model has picture, caption"):
        tool_model().as_function("sound")
