"""Programs as users write them, which hold the types of the public API: mypy and pyright read them, nothing runs them.

A line that a type checker has to refuse has a "type: ignore" for it. One that is not needed is an error, too.
"""
