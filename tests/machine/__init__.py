"""hal0's slots, ledger and job bodies, in step with a small model of what they must do.

    reference    the model: what is true after each operation, and what its caller is told
    real         the same operations on a real database, through the real API and job bodies
    play         both at once: after every operation, rows and answers must be the same
    invariants   what must hold after each step, told from the rows alone; `rest`: at the end
    engine       the engine in this process: bodies stand still at each call until told to go on

The protocol that the model follows is that of ADR-0001, 0004, 0005 and 0007.
"""
