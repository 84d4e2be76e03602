"""The checks of `hal0 doctor`, by theme: what is looked at, and what to do when it is wrong."""
