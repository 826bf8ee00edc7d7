"""remctl: REM (Retentive Environment Model) from scratch, trained and studied on Atari 100K."""

__version__ = "0.2.0"
