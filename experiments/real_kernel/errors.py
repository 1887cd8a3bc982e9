"""What stops a recording: something is missing on this machine, or the boot went wrong."""


class MissingTool(Exception):
    """A program or package that the harness needs is not installed; the message says what to install."""


class BootFailed(Exception):
    """The kernel did not run the workload to its end; the message says what is known."""
