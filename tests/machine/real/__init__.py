"""The same operations as the reference's, on a real database, by hal0's own code.

    home      settings, database, web application, model files, workers that start and end
    orders    through the real web application; a machine's through the ledger
    bodies    the real claim and the real bodies of `validate`, `unload` and `load`
    world     rescue, settling, reconciling and the first act of a boot are hal0's; the engine is
              `engine.py`

Only a pull of a missing file is played, in the ledger: what it does with bytes is tested elsewhere.
So are leases and edges of requests of users, which no dispatcher writes yet.
"""
