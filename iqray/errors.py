"""The one exception for a user's mistake."""


class StudyError(ValueError):
    """The study cannot run as it stands.

    The message names the value, the rule and the way out. Jobs print it without a traceback and
    exit with code 2.
    """
