"""What holds for every test."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# Machines are busy: a property test has no time limit of its own.
settings.register_profile("pamctl", deadline=None)
settings.load_profile("pamctl")

# Tests keep compiled programs apart from the user's, and leave none behind.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pamctl-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
