"""Tasks that log with structlog."""

import structlog

from hybridpool import App

app = App("logs_struct", result_backend="rpc://")

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        structlog.stdlib.render_to_log_kwargs,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
log = structlog.get_logger("shop")


@app.task
def sell(item: str, price: float) -> None:
    """Log an event with values."""
    with structlog.contextvars.bound_contextvars(customer="Ada"):
        log.info("sold", item=item, price=price)
        log.debug("not this")
        try:
            raise LookupError("nothing is left")
        except LookupError:
            log.exception("shelf is empty", item=item)
