"""Workloads: operations a replay runs, its text form, importer, recorded programs; and kernel recordings."""

from jaxswap.workload.recorded import is_held_out, recorded, recorded_names
from jaxswap.workload.recording import Recording, format_recording, read_recording, write_recording
from jaxswap.workload.stored import read_workload, write_text, write_workload
from jaxswap.workload.text import Kind, Workload, format_workload, parse_workload

__all__ = [
    "Kind",
    "Recording",
    "Workload",
    "format_recording",
    "format_workload",
    "is_held_out",
    "parse_workload",
    "read_recording",
    "read_workload",
    "recorded",
    "recorded_names",
    "write_recording",
    "write_text",
    "write_workload",
]
