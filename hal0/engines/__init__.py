"""Inference servers, each through its adapter."""
