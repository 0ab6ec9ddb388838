"""`python -m sokovan.agent`."""

import sys

from sokovan.agent.main import main

sys.exit(main())
