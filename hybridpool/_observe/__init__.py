"""What operators see: listeners of the Bus that write the log. Worker and pool do not know of them."""
