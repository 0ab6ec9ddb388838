"""`python -m sokovan.agent`: a process of its own, which keeps nothing open of its starter's."""

import os
import sys

from sokovan.agent.main import main

# A pipe that a terminal or a test waits on would stay open for as long as the agent lives.
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
sys.exit(main())
