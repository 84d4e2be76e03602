"""The first run: what the machine has, which engines answer, which models one may begin with."""
