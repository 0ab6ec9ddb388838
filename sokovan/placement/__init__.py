"""Which session goes where: pure, from a snapshot to a plan, with a reason for all that waits."""
