"""A module with two apps, and something that is none."""

from hybridpool import App

first = App("first")
second = App("second")
number = 3
