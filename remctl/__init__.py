"""remctl: REM (Retentive Environment Model) from scratch, with honest benchmarks and ablations on Atari 100K."""

__version__ = "0.1.0"
