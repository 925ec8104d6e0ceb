"""The zygote: one clean process that imports the app and forks every child. `client` is the parent's side of it."""
