"""The worker: consumers, intake, settlement, and the runtime that starts and stops them.

Modules:

    app_revocations     Has another library's app mark tasks as revoked in its result backend at once
    backlog             Outcomes of acknowledged messages that wait to be stored or sent
    bootstrap           What a worker needs before it can run
    child_publisher     Publishes what tasks send
    commands            The table of remote control commands
    consumers           Consumes the worker's queues
    control_commands    Remote control commands that change what the worker does
    controlled          What remote control commands see of the worker, and may change
    duplicate_name      Whether another worker on this broker has this worker's name
    event_commands      What other programs ask of a worker's events
    event_sender        Sends Celery's events: that this worker lives, and, if that is wanted, what becomes of each task
    finisher            Has a child of another library's app record how a task ended, where no child could record it
    guest               An app of another library, as far as the parent knows it
    guest_signals       Has the app's child that finishes tasks tell listeners of what the worker does
    inspect_commands    Remote control commands that change nothing
    intake              Intake
    rate_limits         Holds the calls of tasks with a rate limit until their turn
    received            A message on its way through the worker, from intake to settlement
    redelivery          Acknowledges messages, and recognises those that come again because the broker may not have read
                        the acknowledgement
    remote_control      Remote control
    renewal             Loads the app anew while the worker runs (`pool_restart`): new code, no gap
    runtime             The worker: a lane of children with a broker in front of it
    settlement          Outcome → result stored, what follows published, message acknowledged; in that order
    state_file          The state file: keeps the ids of revoked tasks over a worker's restart
"""
