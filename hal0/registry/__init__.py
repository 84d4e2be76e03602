"""Which models are known, where their files lie and whether those are fit to load."""
