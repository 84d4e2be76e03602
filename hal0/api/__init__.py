"""The web process: the control plane over HTTP. it enqueues, reads rows, asks no engine."""
