"""The prefork lane: child processes, the dispatch of calls to them, and the supervisors that keep and replace them.

Modules:

    autoscaler         Brings the lane's size to what `policy.autoscale` wants, as far as `policy.headroom` finds memory
                       for it
    child_handle       One child as the parent sees it: its channel, its state, what it has in hand
    children           The children of a lane: ordered from the zygote, told to go, dead_lettered
    dispatcher         The dispatcher of a lane
    fd_limit           Room for descriptors
    lane               The prefork lane: calls come in here, children run them, and what children say of them is heard
    memory_readings    Readings of memory: of children, cgroups and the host. They read files, so they run in a thread
    memory_watch       Kills a child that owns too much memory in the middle of a task
    reconciler         Keeps the number of children at the lane's size
    spawn_failures     How failed starts went lately
    supervised         SupervisedLane: a lane and its supervisors
    wakeup             A wakeup: wakes whoever sleeps beside it, costs nothing when nobody does
    watchdog           Sees to the calls at work
    zygote_keeper      Keeps a zygote alive: the first one is waited for, one that dies is replaced
"""
