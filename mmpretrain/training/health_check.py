"""The check before training: what ranks tell of themselves and of one another, and what rank 0 makes of it.

What ranks tell goes through the store that they meet at, so that it arrives where a collective would hang; rank 0
judges, and all ranks raise what it says.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from mmpretrain.config.root import Config
from mmpretrain.distributed.limits import limit_waiting
from mmpretrain.distributed.links import LinkError, measure, meet_all, rounds
from mmpretrain.distributed.world import World
from mmpretrain.run_folder import RunFolder
from mmpretrain.training import health_facts
from mmpretrain.training.health_verdict import (
    HealthError,
    Link,
    Seen,
    Verdict,
    judge_clocks,
    judge_links,
    judge_ranks,
    rates,
    silent,
)
from mmpretrain.words import listed

SLICE_S = 5.0  # of waiting, between which signals are heard
LATE_S = 10.0  # for ranks to say that they are too late
HEARD_S = 5.0  # for all of them to hear that the run ends here
logger = logging.getLogger(__name__)
_checks = 0


@dataclass(frozen=True)
class OwnRank:
    """Who this process is; local_rank as the launcher counts, device what it computes on."""

    number: int
    size: int
    local_rank: int
    per_node: int
    device: torch.device


class Check:
    """One look at everything, in two parts: before the ranks join a process group, and after."""

    def __init__(self, folder: RunFolder, config: Config, me: OwnRank, store: dist.Store) -> None:
        global _checks
        _checks += 1  # a process group may see several runs
        self._folder, self._config, self._me = folder, config, me
        self._store = dist.PrefixStore(f"health-{_checks}", store)
        self._seen: list[Seen] = []
        self._warnings: list[str] = []
        self._seconds = 0.0

    def everything(self) -> None:
        """Both parts."""
        self.ranks()
        self.links()

    def ranks(self) -> None:
        """What each rank sees of itself. Raises HealthError."""
        me, limit_s = self._me, self._config.engine.timeout_s
        began = time.monotonic()
        seen = health_facts.look(self._config, me.number, me.local_rank, me.device)
        self._seconds += time.monotonic() - began
        self._tell("rank", asdict(seen))
        if me.number == 0:
            told = self._told("rank", limit_s)
            self._seen = [Seen(**entry) for entry in told.values()]
            if missing := [f"rank {rank}" for rank in range(me.size) if rank not in told]:
                text = f"{listed(missing)} did not start within {limit_s} s (engine.timeout_s)"
                self._announce("ranks", Verdict(problems=[text]))
            else:
                self._announce("ranks", judge_ranks(self._seen, self._config.health))
        self._heed("ranks", limit_s)

    def links(self) -> None:
        """Whether the ranks reach one another, and how fast. Raises HealthError."""
        me, limit_s = self._me, self._config.health.limit_s
        began = time.monotonic()
        world = World.current(me.device)
        limit_waiting(limit_s)
        self._tell("links", self._measured(world, began + limit_s))
        if me.number == 0:
            told = self._told("links", max(began + limit_s - time.monotonic(), 0) + LATE_S)
            verdict, found = self._judged(told), [Link(**link) for entry in told.values() for link in entry["links"]]
            self._announce("links", verdict)
            self._seconds += time.monotonic() - began
            self._note(rates(found))
        self._heed("links", limit_s + 2 * LATE_S)
        limit_waiting(self._config.engine.timeout_s)

    def _measured(self, world: World, end: float) -> dict[str, Any]:
        """Links to this rank, up to the first at which nothing came; the time at which all met; else what was wrong."""
        links: list[Link] = []
        distance = 0
        try:
            met_at = meet_all(world, end)
            for distance in rounds(world.size, self._me.per_node):
                links.append(Link((world.rank - distance) % world.size, world.rank, measure(world, distance, end)))
        except LinkError as error:
            failed = Link((world.rank - distance) % world.size, world.rank, 0.0, str(error))
            # A sum that fails says nothing of any single link.
            return {
                "links": [asdict(link) for link in [*links, *([failed] if distance else [])]],
                "problem": str(error),
            }
        return {"links": [asdict(link) for link in links], "time": met_at}

    def _judged(self, told: dict[int, dict[str, Any]]) -> Verdict:
        if len(told) < self._me.size:
            return silent(told, self._seen, self._config.health.limit_s)
        links = [Link(**link) for entry in told.values() for link in entry["links"]]
        verdict = judge_links(links, self._seen, self._config.health)
        problems = dict.fromkeys(entry["problem"] for entry in told.values() if "problem" in entry)
        if problems and not verdict.problems:
            verdict.problems += problems
        if not problems:
            verdict.add(judge_clocks([entry["time"] for entry in told.values()], self._seen))
        return verdict

    def _note(self, found: dict[str, float] | None) -> None:
        """One line, and the same in the run's status."""
        seen = self._seen
        nodes = list(dict.fromkeys(rank.node for rank in seen))
        devices = list(dict.fromkeys(rank.device for rank in seen))
        facts = {"nodes": nodes, "ranks": len(seen), "devices": devices, "mb_per_s": found, "warnings": self._warnings}
        self._folder.update_status(health={**facts, "seconds": round(self._seconds, 2)})
        rate = f", {found['min']:.0f} MB/s at least and {found['median']:.0f} usually" if found else ""
        where = f"{len(seen)} ranks on {listed(nodes)} ({listed(devices)}){rate}"
        print(f"health: {where}; looked at in {self._seconds:.1f} s", flush=True)

    def _tell(self, part: str, entry: dict[str, Any]) -> None:
        self._store.set(f"{part}/{self._me.number}", json.dumps(entry))

    def _told(self, part: str, limit_s: float) -> dict[int, dict[str, Any]]:
        """What the ranks told, by rank; those that say nothing within the limit are missing."""
        keys = [f"{part}/{rank}" for rank in range(self._me.size)]
        if not self._waited(keys, limit_s):
            keys = [key for key in keys if self._store.check([key])]
        return {int(key.rpartition("/")[2]): json.loads(self._store.get(key)) for key in keys}

    def _announce(self, part: str, verdict: Verdict) -> None:
        self._warnings += verdict.warnings
        for warning in verdict.warnings:
            logger.warning(warning)
        self._store.set(f"verdict/{part}", json.dumps(verdict.to_json()))

    def _heed(self, part: str, limit_s: float) -> None:
        """Raises HealthError if rank 0 found something, or does not answer."""
        key = f"verdict/{part}"
        if not self._waited([key], limit_s + LATE_S):
            raise HealthError(f"rank 0 gave no verdict on the check before training within {limit_s + LATE_S:.0f} s")
        verdict = Verdict(**json.loads(self._store.get(key)))
        if verdict.problems:
            self._tell(f"heard-{part}", {})
            if self._me.number == 0:  # the store goes with this process
                self._told(f"heard-{part}", HEARD_S)
            raise HealthError(listed(verdict.problems, most=4, between="; "), verdict.nodes)

    def _waited(self, keys: Sequence[str], limit_s: float) -> bool:
        """Whether all keys came in time."""
        end = time.monotonic() + limit_s
        while (left := end - time.monotonic()) > 0:
            try:
                self._store.wait(list(keys), timedelta(seconds=min(left, SLICE_S)))
                return True
            except RuntimeError:
                continue
        return False
