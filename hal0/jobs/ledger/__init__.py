"""Which job runs next, and how it ends: the only writer of chains, jobs and attempts.

    intake    a request becomes a chain: deduplicate, supersede, enqueue
    cancel    what a newer intent or a cancel takes out of the queue
    runnable  which job runs next
    drains    when an unload lets requests end first, and for how long
    claims    take the next runnable job by one UPDATE; finish, fail, put back, always fenced
    lane      what an engine still owes us: a load that was sent, an unload that was sent
    orders    an operator's retry and cancel
    rows      chains and jobs as values

Nothing here opens a transaction, reads a file or speaks to an engine: every function takes the
connection of its caller's write transaction, so that a request's changes and its jobs, or a job's
transition and its end, are one commit.
"""
