"""Where results go. `base` is the port; `rpc` sends each to the client that asked."""
