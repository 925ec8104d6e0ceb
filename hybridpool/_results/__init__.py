"""Where results go. `base` is the port; `factory` chooses the backend; `rpc` sends each result to its client."""
