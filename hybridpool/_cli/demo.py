"""`hybridpool demo`: reads the command line and calls `demo_story`."""

from collections.abc import Mapping

import click

from hybridpool._cli.options import layer_of

HELP = """Show a worker at work, for some seconds; no broker is needed.

A worker with one to three forked children runs mixed tasks: quick ones, some that keep a CPU busy, one that fails, one
whose child is killed while it runs. The pool grows with the load and shrinks after it; children are replaced after
some tasks. The exit code is 0 if all of that happened, and 1 if not. Settings in the environment are ignored.
"""
#: with fewer tasks the pool may not grow, and no child may be recycled
MIN_TASKS = 20


def run(broker: str | None, tasks: int) -> int:
    """Run the demo and give its exit code.

    :raises ConfigError: if the broker's URL cannot be used.
    :raises BrokerError: if there is no such broker.
    """
    above: Mapping[str, object] = click.get_current_context().obj or {}
    url = layer_of({"broker_url": broker}, {"broker_url": above.get("broker_url")}).values.get("broker_url")
    # as slow to import as the worker, and `--help` does not need it
    from hybridpool._cli.demo_story import tell

    return tell(None if url is None else str(url), tasks)


demo = click.Command(
    "demo",
    callback=run,
    help=HELP,
    short_help="Show a worker at work, with no broker needed.",
    params=[
        click.Option(
            ["-b", "--broker"],
            metavar="URL",
            help="Go through this RabbitMQ, with queues that are deleted at the end. [default: queues in memory]",
        ),
        click.Option(
            ["--tasks"],
            metavar="N",
            type=click.IntRange(min=MIN_TASKS),
            default=100,
            help=f"How many tasks to send, at least {MIN_TASKS}. [default: 100]",
        ),
    ],
)
