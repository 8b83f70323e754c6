"""The token that a Ray on this machine asks everyone for who wants to use it."""

import contextlib
import os
import secrets
from pathlib import Path

from iqray.errors import StudyError

# Each says something of authentication, and then it is the user's to see to it.
_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def provide_token() -> None:
    """Make the token file that Ray looks for, readable for its owner alone, where there is none.

    Ray's own would be readable for everyone on the machine. It lies in `~/.ray/auth_token` and is
    kept: `ray get-auth-token` prints it, for whoever wants to see the dashboard.

    Raises:
        StudyError: it cannot be written.
    """
    path = Path.home() / ".ray" / "auth_token"
    if path.exists() or any(name in os.environ for name in _VARIABLES):
        return
    temporary = path.with_name(f".auth_token.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode=0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # of another job that starts just now
            path.hardlink_to(temporary)
        temporary.unlink()
    except OSError as error:
        raise StudyError(
            f"the token for Ray cannot be written to {path} ({error}); set RAY_AUTH_TOKEN_PATH to "
            "a file that holds one, or RAY_AUTH_MODE=disabled where nobody else can reach this "
            "machine"
        ) from error
