"""Work on slots: the ledger that orders it, the four kinds that do it, rescue and reconcile."""
