"""Measurements, apart from the tests: ``make bench``. Each has a peer in the same run and prints the ratio."""
