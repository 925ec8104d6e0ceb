"""The sender's side: tasks that can be called from afar, and handles to wait for their results.

Modules:

    app_manifest         What an app is on the other side of the fork: functions, hooks, and a manifest for the parent
    asynclib             What this program's event loop is, for those who run on it as a guest
    call_checks          What a call may be told, and whether its arguments fit
    call_options         The options of one call: as type checkers see them, and checked
    connection           One connection of one event loop: publishes calls with confirm, and listens for their results
    fire_and_forget      Calls for which nobody waits: sync code hands them over and goes on
    function_identity    Two functions under one name
    publisher            Where an app's calls leave
    result_handle        What a call from afar gives back: the task's id, and a way to wait for its result
    sync_portal          The background loop behind the sync calls: one daemon thread, started by the first of them
    task_arguments       The options of ``@app.task``
    tasks                `Task`: what @app.task makes. It stays the function it was, and can be called from afar, typed
"""
