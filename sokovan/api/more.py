"""The endpoints beside those for sessions, agents and the server: said once, for all who serve."""

from collections.abc import Callable

from sokovan.api.arrays import Arrays
from sokovan.api.endpoints.arrays import ArrayEndpoints
from sokovan.api.notices import Notices
from sokovan.api.operation import Endpoints
from sokovan.clock import Clock
from sokovan.config import ApiConfig
from sokovan.scheduler.moves import Applied
from sokovan.store.engine import Database
from sokovan.store.repository import SqlRepository


def more_endpoints(
    repository: SqlRepository,
    database: Database,
    clock: Clock,
    tell: Callable[[Applied], None],
    notices: Notices,
    config: ApiConfig,
) -> tuple[Endpoints, ...]:
    """Build what `build_app` is given as `more`; see `Operations` for what each part is."""
    return (ArrayEndpoints(Arrays(repository, database, clock, tell, notices), config),)
