"""Faster implementations for a CPU, compiled by numba: refinement, and WaveNet's loop."""
