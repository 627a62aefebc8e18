"""``python -m tollkeeper``."""

from __future__ import annotations

from tollkeeper.cli.main import main

if __name__ == "__main__":
    main()
