"""``python -m katcp_tornado.cli``."""

from . import main

if __name__ == "__main__":
    main()
