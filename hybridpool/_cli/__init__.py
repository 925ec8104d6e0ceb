"""The command line: the only package that reads argv and the environment.

Its import is quick: what a command needs to run is imported when it runs.

Modules:

    app_settings      The settings that a command has to go by, with those of an app if one is named
    banner            The start-up banner, in the layout of Celery's
    celery_options    Options of Celery's worker that are not settings
    check             `hybridpool check`
    check_report      What `hybridpool check` says of an app, as text and as JSON
    daemon            A worker as a daemon: in the background, as another user, with a file that holds its process id
    demo              `hybridpool demo`: reads the command line and calls `demo_story`
    demo_app          The demo's app: the tasks that `hybridpool demo` sends, and that its children import by name
    demo_picture      The demo on a terminal: the children, the progress, the last lines of the log
    demo_story        The course of the demo: a worker in this process, three waves of tasks, an idle time, a summary
    demo_tally        The demo's counts, its expectations and its summary
    demo_view         The demo's display while it runs: on a terminal a picture that is redrawn, elsewhere plain lines
    dlq               `hybridpool dlq`: reads the command line and calls `dlq_work`
    dlq_view          Dead letters as text. Text from a message is escaped, so that it cannot control the terminal
    dlq_work          The commands of `hybridpool dlq`
    early_setup       What a command does before it imports anything large: it handles signals and the current folder
    forced_exit       Ends a process whose threads do not end, because a name server or a file system does not answer
    launch            Start a worker from the command line: app, settings, log, banner, signals, exit code
    main              The commands. A failure is one line on stderr and an exit code
    options           Command-line options made from the table of settings, and help that shows them by kind
    remote            `hybridpool inspect`, `control`, `status` and `report`
    remote_table      The remote control commands that `hybridpool inspect` and `hybridpool control` know, and the
                      arguments of each
    remote_work       Sends remote control commands, to workers of ours and of Celery, and shows their answers
    signals           The signals of a worker
    start             What a worker is started with
    title             The command line that `ps` shows: passwords in it are masked, where that can be done
    worker            `hybridpool worker`: reads the command line and calls `launch`
"""

from hybridpool._cli.main import main

__all__ = ["main"]
