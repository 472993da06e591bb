"""The commands of ``python -m airflow_provider_completion``."""

#: Exit codes: there is no answer, or not to every row; the command itself is wrong; a bound has ended a batch.
FAILED, USAGE, BOUND = 1, 2, 3


class CommandError(Exception):
    """A command cannot do what it is asked to.

    :param text: all that the user sees
    :param code: the command's exit code
    """

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code
