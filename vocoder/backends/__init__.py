"""Faster ways to compute on a CPU, compiled by numba."""
