"""``python -m raycl`` is the ``raycl`` command."""

from raycl.cli import main

main()
