"""Slots and models as people declare them: the shapes, what a file says, how to get there; pure."""
