"""A Lemonade server as a part of this machine: brought by a pin, switched, switched back."""
