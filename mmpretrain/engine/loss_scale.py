"""Loss scaling for float16, whose gradients below 6e-8 are zero and above 65504 infinite.

What goes into the model's backward is multiplied by the scale, and its gradients are divided by it before anything
looks at them. A step whose gradients overflow is not skipped but taken again at half the scale; one whose features or
losses are not finite is not, as no scale would help.
"""

from __future__ import annotations

from dataclasses import dataclass

START, LEAST, PATIENCE = 2.0**16, 1.0, 2000


@dataclass
class LossScale:
    """value: the factor, a power of two. good_steps: how many in a row were taken at it."""

    value: float = START
    good_steps: int = 0

    def lower(self) -> bool:
        """Halve the factor after an overflow; whether that was still possible (otherwise a step has no gradients)."""
        self.good_steps = 0
        if self.value <= LEAST:
            return False
        self.value /= 2
        return True

    def taken(self) -> None:
        """Count a step that was taken; after ``PATIENCE`` in a row the factor doubles."""
        self.good_steps += 1
        if self.good_steps == PATIENCE:
            self.value, self.good_steps = self.value * 2, 0

    def restore(self, value: float, good_steps: int) -> None:
        """Go on from a checkpoint."""
        self.value, self.good_steps = value, good_steps
