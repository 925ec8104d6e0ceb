"""Lanes run calls. `base` says what every lane does; `prefork` is the lane of forked children."""
