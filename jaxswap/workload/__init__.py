"""Workloads: operations a replay runs, its text form, importer, recorded programs; and kernel recordings."""

from jaxswap.workload.recorded import recorded, recorded_names
from jaxswap.workload.recording import Recording, format_recording, read_recording, write_recording
from jaxswap.workload.text import (
    Kind,
    Workload,
    format_workload,
    parse_workload,
    read_workload,
    write_workload,
)

__all__ = [
    "Kind",
    "Recording",
    "Workload",
    "format_recording",
    "format_workload",
    "parse_workload",
    "read_recording",
    "read_workload",
    "recorded",
    "recorded_names",
    "write_recording",
    "write_workload",
]
