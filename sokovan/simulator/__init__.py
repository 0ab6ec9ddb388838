"""How we prove it: the real scheduler on a virtual clock, among faults, checked at every step."""
