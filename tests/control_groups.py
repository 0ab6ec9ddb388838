"""What agents that were killed leave in the control groups of this machine is taken away."""

from pathlib import Path

from sokovan.agent.cgroups import Group, detect


def clear_control_groups(home: Path) -> None:
    """Kill what is in the groups of a home's agents, and remove those that are empty.

    An agent that is killed while it kills leaves what it had frozen for the next agent to see to.
    """
    for directory in (home / "agents").glob("*"):
        groups = detect(directory)
        if groups is not None:
            for path in Path(groups.tracker).glob("k-*"):
                Group((str(path),)).kill()
            groups.sweep(set())
            groups.close()
