"""What a command can fail with."""


class CommandError(Exception):
    """The user's mistake, or the machine's. The text is all the user sees of it.

    code  exit code: 2 for what the user asked for, 1 for what the machine would not do
    """

    def __init__(self, text, code=2):
        super().__init__(text)
        self.code = code
