"""`python demo/app.py` is `vocoder demo`, with the same options.

The page itself is `vocoder.demo`, so that an installed package has it, too.
"""

import sys

from vocoder.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
