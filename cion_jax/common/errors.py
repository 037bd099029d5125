"""The one base of all errors that the user can mend. Imports nothing."""


class UserError(ValueError):
    """Something that was given cannot be used; the message says what was got, what was expected and what to do.

    A command ends with this message and exit status 2, without a traceback (`common.cli`). Anything else that is
    raised is a bug, and shows its traceback.
    """
