"""`python demo/app.py` is `vocoder demo`, with the same options.

The page itself is `vocoder.demo`, which an installed package has too.
"""

import sys

from vocoder.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
