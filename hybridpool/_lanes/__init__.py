"""Lanes, in which calls run: `base` is what they have in common, `prefork` the lane of child processes.

Modules:

    base             A lane runs calls: what it is asked for, and one call as the lanes see it
    children         Child processes as the parent sees them, for all lanes that have some
    prefork          The prefork lane
    quota            Keeps calls of a task that may run only so many at once in this worker, until others of it have
                     ended
    reconciler       The reconciler keeps the number of children at the lane's size
    shared           The lanes whose children run several calls at once
    snapshot         What a lane shows of itself at one moment
    supervised       SupervisedLanes: the lanes of a pool and their supervisors, over one zygote
    wakeup           A wakeup: it wakes the tasks that wait for it at that moment, and costs nothing when none does
    zygote_keeper    Keeps a zygote alive
"""
