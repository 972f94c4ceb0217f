"""How a demo ends when something went wrong."""


class DemoError(Exception):
    """Ends the demo; its text is one sentence that says what went wrong."""
