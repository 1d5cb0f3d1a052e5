"""Reads address 0 from C, which no exception handler survives."""

import ctypes

ctypes.string_at(0)
