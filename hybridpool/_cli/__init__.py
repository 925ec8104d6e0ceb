"""The command line: the only package that reads argv and the environment.

Its import is quick: what a command needs to run is imported when it runs.

Modules:

    banner          The start-up banner, laid out as operators of Celery know it
    demo            `hybridpool demo`: what the command line says, handed to `demo_story`
    demo_app        The demo's app: the tasks that `hybridpool demo` sends, and that its children import by name
    demo_picture    The demo on a terminal: the children, how far it is, the last lines of the log
    demo_story      The demo's story: a worker in this process, three waves of tasks, a rest, a summary
    demo_tally      What the demo counts, what it expects, and the summary
    demo_view       What the demo shows while it runs
    dlq             `hybridpool dlq`: what the command line says, handed to `dlq_work`
    dlq_view        Dead letters as text. What comes from a message is shown so that it cannot do anything to a terminal
    dlq_work        What the commands of `hybridpool dlq` do
    early_setup     What a command sees to before it imports anything large
    forced_exit     The end of a process whose own threads do not end
    launch          Start a worker from the command line: app, settings, log, banner, signals, exit code
    main            The commands, and how their failures look: one line on stderr, and an exit code
    options         Command-line options made from the table of settings, and help that shows them by kind
    signals         What signals mean to a worker
    title           What `ps` shows of this process: passwords on its command line are masked, where that can be done
    worker          `hybridpool worker`: what the command line says, handed to `launch`
"""

from hybridpool._cli.main import main

__all__ = ["main"]
