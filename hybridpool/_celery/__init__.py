"""An app of Celery's, run by our zygote and children: the only package that imports Celery.

It is loaded in the zygote, when the app that was named turns out to be Celery's, and never in the parent. A child reads
a message as Celery's worker does and hands it to Celery's tracer. So results, links, chains, chords, retries, signals
and serializers are Celery's own code. What Celery's parent does with an app, after a child was lost or for a message
that is not run, is done by one more child, with Celery's own `Request`.

Modules:

    chords             A chord whose last part died when it was about to send the chord's body
    manifest           What the parent must know of the app: settings, tasks, queues, and what is not honoured
    messages           A message, in the forms in which Celery's code wants it
    parent_signals     Signals of Celery's main process
    program            The app, as the zygote and the children use it: implements `_child.program.Program`
    publishing         A transport of kombu's that publishes through the parent, so that children need no connection to
                       the broker
    remote_commands    Remote control for an app
    runner             Runs a message's task by Celery's tracer (`celery.app.trace.build_tracer`)
    setting_states     What becomes of each setting of Celery's: as there, in another way, or not honoured
    unfinished         Records how a task ended that could not record it itself, as Celery's parent does
"""
