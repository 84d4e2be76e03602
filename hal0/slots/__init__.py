"""Named places that hold one model each."""
