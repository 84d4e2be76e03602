"""What hal0 must do, small enough to be read at once; nothing of hal0 is imported here.

    rows      slots, chains, jobs, the lane, and how each is written; the only writers
    orders    what an operator or a machine asks for, and what it is told
    losses    what the engine has, and what its list means for slots
    checks, unloads, loads    what each kind of job does between two places where it stands still
    bodies    which job runs next, and how its body goes on
    world     what the engine, the clock, dying workers and settling hands do to all of it

One operation is one method of `world.Reference`; what it returns is what hal0 must answer. Where a
line stands for a rule of the protocol, the rule is named (`rules.py`).
"""
