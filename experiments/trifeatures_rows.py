"""Rows of the Trifeatures tables: what is trained, on which pairs, and for how long; nothing is chosen by results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shards.trifeatures_pairs import Pairs

EPOCH_STEPS = 156  # of 10,000 pairs in batches of 64, full ones only
BATCH = 64
CURVE_STEPS = 390  # between two evaluations while training: 2.5 epochs
SHORT = 5  # epochs of an ablation, whose reference is the main row of CoMM on biased pairs after as many


class Part(StrEnum):
    """What a row is for; ``--parts`` takes these names."""

    main = "main"
    """The methods of figure 4 and table 7."""

    paper = "paper"
    """CoMM with the loss as printed (pairing=paper)."""

    controls = "controls"
    """Other methods on biased pairs, and CoMM before training."""

    terms = "terms"
    """One kind of terms alone (figure 5)."""

    fusion = "fusion"
    """The linear fusion (table 4)."""

    augmentations = "augmentations"
    """Views of one image weaker than those of the other (table 5)."""

    crops = "crops"
    """Weaker and stronger crops (figure 7)."""


@dataclass(frozen=True)
class Row:
    """One row. subject: the representation that is probed. epochs: None: one step that changes nothing.

    curve: whether it is evaluated while training, too.
    """

    title: str
    name: str
    part: Part
    pairs: Pairs
    epochs: int | None
    subject: str
    tokens: Sequence[str]
    curve: bool = False

    def overrides(self, data: Path, steps: int | None = None) -> list[str]:
        """Tokens for the launcher; steps: at most so many."""
        wanted = 1 if self.epochs is None else self.epochs * EPOCH_STEPS
        wanted = wanted if steps is None else min(wanted, steps)
        tokens = ["experiment=trifeatures", f"data.path={data}", f"train.samples={BATCH * wanted}", *self.tokens]
        tokens += ["tracking.tensorboard=off", "tracking.pictures=false"]  # nobody looks at so many of them
        tokens += ["optim.lr=1e-12"] if self.epochs is None else []
        every = CURVE_STEPS if steps is None else max(1, steps // 2)
        return tokens + (["evaluation.during=[factors]", f"evaluation.every_steps={every}"] if self.curve else [])


def _views(first: Sequence[str] = (), second: Sequence[str] = ()) -> list[str]:
    """Tokens that change the views of the two images."""
    changes = {"first": first, "second": second}
    return [f"data.modalities.{name}.augment.{change}" for name, found in changes.items() for change in found]


CROP = [f"data.modalities.{name}.train={{crop: [0.5, 1.0]}}" for name in ("first", "second")]
HEADS = ["method.hidden=256", "method.width=128"]
# The released code's form of the loss, which made the published figures.
COMM = ["method=comm", "method.pairing=code", "method.head_hidden=256", "method.head_width=128"]
PAPER = [*COMM, "method.pairing=paper"]
SELF = ["method=cross_self", *HEADS]
# The released code compares lightly cropped images with their strong augmentation. 512 hidden units of its critics are
# scaled down like everything else.
FACTORCL = ["method=factorcl", *CROP, "method.critic_hidden=128"]
CROSS = ["method=clip", "model.embed_dim=16", *CROP]
# What the released code calls no augmentation still crops, lightly.
NONE = ["crop=[0.5, 1.0]", "flip=0", "jitter=0", "grey=0"]
WHOLE = ["crop=null"]
# While training, too, for what ablations are compared to.
BOTH_PROBES = ["evaluation.factors.search=always"]
LIGHTEST = (0.08, 0.15, 0.5, 0.8)  # least shares of the area that a crop keeps; all other rows: 0.3

# The paper trains on unbiased pairs for R and U, and on biased ones for S, which have synergy to be learned from; S
# compares like with like among the rows of biased pairs alone.
_MAIN, _BIASED, _UNBIASED = Part.main, Pairs.biased, Pairs.unbiased
ROWS = [
    Row("Cross (CLIP), unbiased", "cross", _MAIN, _UNBIASED, 10, "first+second", CROSS),
    Row("Cross+Self, unbiased", "cross-self", _MAIN, _UNBIASED, 12, "first+second", SELF, curve=True),
    Row("Cross+Self, biased", "cross-self-biased", _MAIN, _BIASED, 8, "first+second", SELF, curve=True),
    Row("FactorCL, unbiased", "factorcl", _MAIN, _UNBIASED, 10, "shared+unique", FACTORCL),
    Row("CoMM, unbiased", "comm", _MAIN, _UNBIASED, 10, "fused", COMM, curve=True),
    Row("CoMM, biased", "comm-biased", _MAIN, _BIASED, 10, "fused", [*COMM, *BOTH_PROBES], curve=True),
    Row("CoMM, loss as printed, unbiased", "comm-paper", Part.paper, _UNBIASED, 10, "fused", PAPER, curve=True),
    Row("CoMM, loss as printed, biased", "comm-paper-biased", Part.paper, _BIASED, 10, "fused", PAPER, curve=True),
    Row("Cross (CLIP), biased", "cross-biased", Part.controls, _BIASED, 10, "first+second", CROSS),
    Row("FactorCL, biased", "factorcl-biased", Part.controls, _BIASED, 10, "shared+unique", FACTORCL),
    Row("CoMM, before training", "comm-untrained", Part.controls, _UNBIASED, None, "fused", COMM),
    *(
        Row(f"only terms of {title}", f"comm-{terms}", Part.terms, _BIASED, SHORT, "fused", [*COMM, token])
        for title, terms in (("single modalities", "unimodal"), ("the whole", "fused"))
        for token in [f"method.terms={terms}"]
    ),
    Row("linear fusion", "comm-linear", Part.fusion, _BIASED, SHORT, "fused", [*COMM, "model.fusion.form=linear"]),
    *(
        Row(title, f"comm-{name}", Part.augmentations, _BIASED, SHORT, "fused", [*COMM, *views])
        for title, name, views in (
            ("all / none", "all-none", _views(second=NONE)),
            ("none / all", "none-all", _views(first=NONE)),
            ("all but crop / all", "uncropped-all", _views(first=WHOLE)),
            ("all / all but crop", "all-uncropped", _views(second=WHOLE)),
        )
    ),
    *(
        Row(f"crops of {least:g} to 1", f"comm-crop-{100 * least:.0f}", Part.crops, _BIASED, SHORT, "fused", tokens)
        for least in LIGHTEST
        for tokens in [[*COMM, *_views(*[[f"crop=[{least}, 1.0]"]] * 2)]]
    ),
]
REFERENCE = next(row for row in ROWS if row.name == "comm-biased")
