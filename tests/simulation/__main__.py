"""python -m tests.simulation: run schedules, print one line about them, or the first fault."""

import click

from tests.simulation.sweep import simulate
from tests.simulation.world import PromiseBroken


@click.command()
@click.option("--seed", type=int, help="Of the first schedule; the others have the numbers after it.  [default: any]")
@click.option("--schedules", type=int, default=1000, show_default=True, help="How many.")
def main(seed: int | None, schedules: int) -> None:
    """Drive the pool through seeded schedules of everything that can go wrong, without a process."""
    try:
        click.echo(simulate(seed=seed, schedules=schedules))
    except PromiseBroken as broken:
        raise click.ClickException(str(broken)) from None


if __name__ == "__main__":
    main()
