"""`python -m tinyworld` is the command line."""

from tinyworld.cli.main import main

raise SystemExit(main())
