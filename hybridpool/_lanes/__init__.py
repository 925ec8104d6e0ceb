"""Lanes, in which calls run: `base` is what they have in common, `prefork` the lane of child processes.

Modules:

    base        A lane runs calls: what it is asked for, and one call as the lanes see it
    prefork     The prefork lane
    snapshot    What a lane shows of itself at one moment: frozen values for supervisors, statistics and the operator
    wakeup      A wakeup: it wakes the tasks that wait for it at that moment, and costs nothing when none does
"""
