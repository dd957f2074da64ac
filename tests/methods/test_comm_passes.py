"""How often CoMM runs its encoders: once for every form of the inputs that its terms look at."""

from __future__ import annotations

from typing import Any

import pytest

from mmpretrain.config.methods.names import Pairing, Terms
from tests.methods.toys import make_batch, make_config, make_method, make_step


@pytest.mark.parametrize(
    ("pairing", "terms", "passes"),
    [
        (Pairing.code, Terms.all, 2),
        (Pairing.code, Terms.unimodal, 2),
        (Pairing.code, Terms.fused, 2),
        (Pairing.paper, Terms.all, 3),
        (Pairing.paper, Terms.unimodal, 3),
        (Pairing.paper, Terms.fused, 2),
    ],
)
def test_every_encoder_runs_once_for_each_view_and_for_plain_inputs_only_where_a_term_looks_at_them(
    pairing: Pairing, terms: Terms, passes: int
) -> None:
    config = make_config("comm", 2, pairing=pairing, terms=terms, head_hidden=8, head_width=6)
    method = make_method(config)
    seen: dict[str, int] = dict.fromkeys(config.data.modalities, 0)

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            seen[name] += 1

        return hook

    # The backbone, which every way through an encoder runs, whatever is pooled behind it.
    encoders: Any = method.model.encoders
    hooks = [encoders[name].backbone.register_forward_hook(count(name)) for name in seen]
    method.encode(method.model, method.prepare(make_batch(config), make_step()))
    assert hooks and seen == dict.fromkeys(seen, passes)
