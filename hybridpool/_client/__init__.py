"""The sender's side: tasks that can be called from afar, and handles to wait for their results.

Modules:

    app_manifest            An app, as the zygote and the children use it
    asynclib                Finds out which event loop library runs, for code that runs on the loop of a user's program
    call_checks             Checks the options and arguments of a call before it is sent
    call_options            The options of one call: as type checkers see them, and checked
    connection              One connection of one event loop
    fire_and_forget         Calls that are sent without waiting for the broker
    function_identity       Decides whether two functions of one name are one function that was defined again, or two
                            functions
    lifespan_declaration    A lifespan as it is declared
    publisher               Sends an app's calls
    result_handle           Handles of sent calls: the task's id, and waiting for its result
    sync_portal             The background event loop of sync calls: one daemon thread, started by the first of them
    task_arguments          The options of ``@app.task``
    task_functions          Which functions can be tasks, and in which lane a function can run
    tasks                   `Task` and `AsyncTask`: what @app.task makes
"""
