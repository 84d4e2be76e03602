"""The worker process: a Huey consumer whose queue is the ledger."""
