"""The sender's side: tasks that can be called from afar, handles to wait for their results.

calls     `Task`: what @app.task makes; `enqueue`, `delay`, `options`
handle    what a call from afar gives back
sender    one connection of one event loop
fire_and_forget     calls for which nobody waits
portal    the background loop behind the sync calls
"""
