"""Which user a server runs as: Postgres refuses root, and we add no user and open no door."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.errors import StartupError
from app.settings import child_environment

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a server. All None: our own. ``namespace``: that uid, within a user namespace."""

    uid: int | None = None
    gid: int | None = None
    namespace: int | None = None

    def own(self, path: Path) -> None:
        """Make *path* and all below it belong to this identity, where that is not so already.

        Raises ``StartupError`` where they are another user's and we are not root.
        """
        uid = os.geteuid() if self.uid is None else self.uid
        gid = os.getegid() if self.gid is None else self.gid
        if path.stat().st_uid == uid:
            return  # the top is changed last, so all below it is right too
        if os.geteuid() != 0:
            raise StartupError(
                f"{path} belongs to user {path.stat().st_uid}, we are {os.geteuid()}",
                remedy="start as that user, or set CALLBOARD_HOME to a folder of your own",
            )
        for folder, links, files in os.walk(path):
            for name in (*files, *links):
                os.chown(Path(folder, name), uid, gid, follow_symlinks=False)
        os.chown(path, uid, gid)


def unprivileged(folder: Path, program: Path) -> Identity:
    """Who may run *program* in *folder*: ourselves, or as root the user nobody.

    Where nobody cannot reach folder and program (below a private home), root stays root outside and
    is nobody within a user namespace; see ``no_namespace`` where the system forbids that too.
    """
    if os.geteuid() != 0:
        return Identity()
    uid, gid = _nobody()
    if _reaches(uid, gid, folder, program):
        return Identity(uid=uid, gid=gid)
    return Identity(namespace=uid)


def no_namespace(folder: Path, program: Path, said: str) -> StartupError:
    """The error for a system that forbids user namespaces where we would need one."""
    return StartupError(
        f"Postgres does not run as root, the user nobody cannot reach {folder} or {program}, "
        f"and this system allows no user namespace: {said}",
        remedy="start as an ordinary user, or set CALLBOARD_HOME (and install) below a folder "
        "that every user may enter, such as /var/lib, or set DATABASE_URL",
    )


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def _reaches(uid: int, gid: int, folder: Path, program: Path) -> bool:
    """Ask the system itself: mode bits alone do not know of access lists or mount options."""
    script = 'cd "$1" && exec "$2" --version'
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", str(folder), str(program)],
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False  # root of a container that has one user only
    return done.returncode == 0
