"""What hal0 must do, small enough to be read at once; nothing of hal0 is imported here.

    rows      slots, chains, jobs and the lane; `writes` are their only writers
    orders    what an operator asks for, and what it is told; `machines`: what they ask for
    engine    what the engine has, who waits for its answers, what one look at it tells
    losses    what it has no more, and how a slot takes over what it has
    checks, unloads, loads    what each kind of job does between two places where it stands still
    bodies    which job runs next, and how its body goes on
    settling  what answers mean, also late ones; `scans`: what a scan makes of one look
    users     requests that enter, are forwarded, and leave; `wakes`: those that find nothing there
    world     what the engine, other clients of it, the clock and dying workers do to it all

One operation is one method of `world.Reference`; what it returns is what hal0 must answer. Where a
line stands for a rule of the protocol, the rule is named (`rules.py`).
"""
