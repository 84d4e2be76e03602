"""Inference through slots: which slot a request means, that it serves, its way there and back."""
