"""The prefork lane: child processes, the dispatch of calls to them, and the supervisors that keep and replace them.

Modules:

    autoscaler         Brings the lane's size to what `policy.autoscale` wants, as far as `policy.headroom` finds memory
                       for it
    child_handle       One child as the parent sees it: its channel, its state, its calls in flight
    children           The children of a lane, from the order to fork one to its end
    dispatcher         The dispatcher of a lane
    fd_limit           The limit of file descriptors
    lane               The prefork lane: it takes calls, has children run them, and hears what the children say of them
    memory_readings    Readings of memory: of children, cgroups and the host. They read files, so they run in a thread
    memory_watch       Kills a child that owns too much memory in the middle of a task
    reconciler         The reconciler keeps the number of children at the lane's size
    spawn_failures     How the starts of children went lately: the reconciler waits, or gives up, by these figures
    supervised         SupervisedLane: a prefork lane and its supervisors
    watchdog           The watchdog of a lane checks the calls that run
    zygote_keeper      Keeps a zygote alive: the first one is waited for, one that dies is replaced
"""
