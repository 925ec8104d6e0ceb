"""Sending calls: tasks that can be called remotely, and handles to wait for their results.

tasks              `Task`: what @app.task makes; `enqueue`, `delay`, `options`
task_arguments     the options of a task
call_options       the options of one call
call_checks        checks of options and arguments of a call
function_identity  whether two functions of one name are the same task
publisher          sends the calls of one app
connection         one broker connection of one event loop
fire_and_forget    calls that are sent without waiting for the broker
result_handle      waits for the result of a call
sync_portal        the background event loop of sync calls
asynclib           checks of the running event loop
app_manifest       an app, as the zygote and the children use it
"""
