"""Measurements, apart from the tests: ``make bench``. Each is compared with its peers in the same run.

A part is a module with a function ``measure``. ``results`` has the shape of what comes of it, ``processes`` and
``server`` are where it runs, ``ways`` and ``peers`` what is compared; ``page`` and ``plots`` make the page of it.
"""
