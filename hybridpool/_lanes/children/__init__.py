"""Child processes as the parent sees them, for all lanes that have some.

Modules:

    fd_limit          The limit of file descriptors
    handle            One child as the parent sees it: its channel, its state, its calls in flight
    lane              `ChildLane`: what all lanes of child processes have in common, the life of their children
    registry          The children of a lane, from the order to fork one to its end
    spawn_failures    How the starts of children went lately: the reconciler waits, or gives up, by these figures
    stack_reports     Asks the children of a lane for their stacks, for the operator, and says which of them did not
                      answer
"""
