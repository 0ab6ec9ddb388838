"""What each stage does: guard, ask, act, report."""
