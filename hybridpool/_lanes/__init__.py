"""Lanes, in which calls run: `base` is what they have in common, `prefork` the lane of child processes.

Modules:

    base       One call as the lanes see it: what to run, within which limits, and whom to tell
    prefork    The prefork lane
"""
