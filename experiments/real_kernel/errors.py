"""What stops a recording: something is missing on this machine, bad input, or a boot that went wrong."""


class MissingTool(Exception):
    """A program or package that the harness needs is not installed; the message says what to install."""


class RecordingError(Exception):
    """There is no such kernel, or it did not run the workload to its end; the message says what is known."""
