"""``python -m runtime`` is ``pointsman``."""

from runtime.cli import main

main()
