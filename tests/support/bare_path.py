"""The PATH of a bare machine: the virtual environment, GNU coreutils and a shell, nothing else.

conftest.py gives it to the whole run, so that a program that happens to be installed here cannot
make a test pass, or run, that fails on a machine without it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# GNU coreutils 9, of which macOS has its own; a shell, which make needs as well; and what macOS
# says about itself with, which is a part of it.
_NAMES = """
[ arch b2sum base32 base64 basename basenc cat chcon chgrp chmod chown chroot cksum comm cp csplit
cut date dd df dir dircolors dirname du echo env expand expr factor false fmt fold groups head
hostid hostname id install join kill link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl
nohup nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd readlink realpath rm rmdir
runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort split stat stdbuf
stty sum sync tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq unlink
uptime users vdir wc who whoami yes sh bash sysctl
"""
PROGRAMS = _NAMES.split()


def bare_path(folder: Path, path: str) -> str:
    """A PATH to the same programs as `path`, but for those that a bare machine lacks.

    Args:
        folder: an empty one, which gets a link to each program.
        path: folders to look for programs in, as in the environment.
    """
    for name in PROGRAMS:
        found = (Path(where) / name for where in path.split(os.pathsep) if where)
        if program := next((each for each in found if each.is_file()), None):
            (folder / name).symlink_to(program)
    folders = [str(folder)]
    if sys.prefix != sys.base_prefix:  # or else it is the folder of all programs
        folders.append(str(Path(sys.executable).parent))
    return os.pathsep.join(folders)
