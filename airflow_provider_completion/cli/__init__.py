"""The commands of ``python -m airflow_provider_completion``."""


class CommandError(Exception):
    """A command cannot do what it is asked to. Its text is all that the user sees."""
