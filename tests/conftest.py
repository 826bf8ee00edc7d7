"""What every test gets."""

import os

# Before torch is imported anywhere: threads that spin while they wait ruin parallel test runs on few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
