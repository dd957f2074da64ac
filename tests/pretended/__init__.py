"""A pretended GPU for tests: tensors that say they are on cuda:0, and a log of what a real one would have done.

    with PretendedDevice() as device:            # values on the CPU;  PretendedDevice(meta=True): sizes alone
        rows = device.tensor(torch.randn(8, 4))
        loss = contrastive([Pair(rows, rows)], scale=10.0, world=device.world())[0].loss
    assert not device.log.syncs and not device.log.mixes

Counted is what reaches the dispatcher: one kernel for each operation that is not a view, so a real GPU launches at
least as many. Not seen: streams, the allocator, and what libraries do inside one operation.
"""

from tests.pretended.device import PretendedDevice
from tests.pretended.log import Log

__all__ = ["Log", "PretendedDevice"]
