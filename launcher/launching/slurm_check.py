"""Whether Slurm took a job as the plan says it: a site's own plugins may change what is submitted."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.planning.plan import RunPlan
from launcher.slurm import client as slurm_client


def changed_by_slurm(plan: RunPlan, job_id: str) -> list[str]:
    """One sentence for each thing that Slurm says otherwise than the plan; none where it does not answer."""
    try:
        facts = slurm_client.job_facts(job_id)
    except slurm_client.SlurmError:
        return []
    return differences(plan, facts)


def differences(plan: RunPlan, facts: Mapping[str, str]) -> list[str]:
    """The same, of what ``scontrol show job`` says."""
    profile, nodes = plan.resources.profile, plan.resources.nodes
    assert profile is not None
    wanted = {
        "TimeLimit": _time(profile.time_limit_min),
        "Partition": profile.partition,
        "Account": profile.account,
        "QOS": profile.qos,
        "NumNodes": str(nodes),
        "NumTasks": str(plan.resources.world_size),
        "Requeue": "1",
    }
    found = []
    for name, value in wanted.items():
        has = facts.get(name, "(null)")
        if name == "NumNodes":
            has = has.partition("-")[0]  # 2-2 while it waits
        same = value is None or has == "(null)" or value.lower() == has.lower()
        if name == "Partition" and value is not None:
            same = set(has.split(",")) <= set(value.split(","))  # Slurm has them in its own order
        if not same:
            found.append(f"Slurm has {name}={has} where the plan has {value}: a rule of this cluster changed it")
    return found


def _time(minutes: int) -> str:
    """As scontrol writes it."""
    days, rest = divmod(minutes, 1440)
    return f"{f'{days}-' if days else ''}{rest // 60:02}:{rest % 60:02}:00"
