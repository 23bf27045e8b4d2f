"""What maintainers and teachers run: build, run, record and measure the notebooks."""


class QuartetError(Exception):
    """Something expected went wrong; the message says what, where and what to do about it."""
