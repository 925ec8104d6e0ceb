"""The prefork lane: child processes, the dispatch of calls to them, and the supervisors that keep and replace them.

Modules:

    autoscaler         Brings the lane's size to what `policy.autoscale` wants, as far as `policy.headroom` finds memory
                       for it
    dispatcher         The dispatcher of a lane
    lane               The prefork lane: it takes calls, has children run them, and hears what the children say of them
    memory_readings    Readings of memory: of children, cgroups and the host. They read files, so they run in a thread
    memory_watch       Kills a child that owns too much memory in the middle of a task
    watchdog           The watchdog of a lane checks the calls that run
"""
