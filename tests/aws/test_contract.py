"""What the queue and commits promise where requests conflict, fail on the server, and lose their answers.

The index is not late here: these tests read what they wrote.
"""

# ruff: noqa: F403 # the tests of other modules, with the fixtures of this folder

from __future__ import annotations

import pytest

from tests.contract.commit.test_commit import *
from tests.contract.frontier.test_counters import *
from tests.contract.frontier.test_frontier import *
from tests.contract.frontier.test_hosts import *
from tests.contract.frontier.test_redirects import *
from tests.contract.frontier.test_scheduler import *
from tests.contract.frontier.test_settlement import *
from tests.contract.frontier.test_termination import *
from tests.contract.frontier.test_worker import *

# In place of theirs, which choose engines.
pytestmark = pytest.mark.aws
