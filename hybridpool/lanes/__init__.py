"""Where a call runs. `process` is the prefork lane: children, each behind a `link`, born from a `zygote`."""
