"""``mosaique probe``: synthetic callers join a running server and report what a conference on it is like.

``signal`` (pure: the test picture and sound, and reading them back) ← ``loops`` (encoded once) ← ``callers``,
``observer`` ← ``run`` (one probe) ← ``command`` (the command line). ``report`` says what is healthy.
"""

from mixer.probe.command import add_arguments, run

__all__ = ["add_arguments", "run"]
