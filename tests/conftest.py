"""What every test gets."""

import os

# Before torch is imported anywhere, as the command line has it: threads that spin while they wait slow each other down.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
