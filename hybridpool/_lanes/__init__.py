"""Where a call runs. `process` is the prefork lane: children, each behind a `child`, born from a `zygote`."""
