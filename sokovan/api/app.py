"""The HTTP interface: `/v1`, JSON, a token for each caller.

Requests are checked for their shape by the endpoints and for their meaning by the service. Answers
are sent as the service gives them.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sokovan import __version__
from sokovan.api import contract
from sokovan.api.asked import Stopping, Who, caller_of
from sokovan.api.endpoints.agents import AgentEndpoints
from sokovan.api.endpoints.probes import ProbeEndpoints
from sokovan.api.endpoints.server import ServerEndpoints
from sokovan.api.endpoints.sessions import SessionEndpoints
from sokovan.api.guard import Guard, Identify
from sokovan.api.metrics.meters import Meters
from sokovan.api.metrics.requests import MeasuredRequests
from sokovan.api.operation import Endpoints
from sokovan.api.problems import invalid, problem_response
from sokovan.api.rate import Limiter
from sokovan.api.service import Service
from sokovan.clock import Clock, SystemClock
from sokovan.config import ApiConfig
from sokovan.domain.access import Role
from sokovan.domain.errors import ForbiddenError, InvalidRequestError, SokovanError


def build_app(
    service: Service,
    identify: Identify,
    config: ApiConfig,
    *,
    shutdown: Callable[[], None],
    more: Sequence[Endpoints] = (),
    clock: Clock | None = None,
    meters: Meters | None = None,
) -> FastAPI:
    """Build the API in front of `service`.

    Whoever stops the server sets `app.state.stopping.told`: requests that wait then end at once.

    Args:
        service: What does the work on sessions and agents.
        identify: Says whose a token is.
        config: The limits on what is taken at once.
        shutdown: Called once after `POST /v1/shutdown` was answered.
        more: Endpoints beside those for sessions, agents and the server.
        clock: Measures requests, and limits their rate.
        meters: Where requests are counted, together with all else that `/metrics` tells.
    """
    clock = clock or SystemClock()
    meters = meters or Meters(clock)
    app = FastAPI(
        title="Sokovan",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # these pages would be fetched from far away, and without the token
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,  # nobody is sent, with the token, to what the Host header says
    )
    stopping = app.state.stopping = Stopping()
    endpoints: tuple[Endpoints, ...] = (
        SessionEndpoints(service, config, stopping),
        AgentEndpoints(service),
        ServerEndpoints(service, stopping, shutdown),
        *more,
    )
    probes = ProbeEndpoints(service, stopping, meters.registry)
    for part in endpoints:
        app.include_router(_routes(part))
    app.include_router(_routes(probes, prefix=""))
    for path, answer, described in (
        ("/healthz", probes.healthz, contract.probe("healthz")),
        ("/readyz", probes.readyz, contract.probe("readyz", 503)),
    ):
        app.add_api_route(path, answer, response_class=Response, methods=["GET"], **described)
    app.add_exception_handler(SokovanError, _sokovan_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    limiter = Limiter(identify, clock, config.requests_per_s_max)
    app.add_middleware(Guard, identify=limiter)
    app.add_middleware(MeasuredRequests, meters=meters, clock=clock)  # outside of all else
    app.openapi = partial(_openapi, app, endpoints, app.openapi)  # type: ignore[method-assign]
    return app


class _Direct(APIRoute):
    """A route to an endpoint that takes the request and who asks, and nothing of the address.

    FastAPI describes it, and has nothing to find out for it, which takes longer than the rest.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            caller = await caller_of(request)
            for dependency in self.dependencies:
                assert dependency.dependency is not None
                await dependency.dependency(caller)
            answered: Response = await self.endpoint(request, caller)
            return answered

        return handle


def _routes(endpoints: Endpoints, prefix: str = "/v1") -> APIRouter:
    """Say which address leads to which method."""
    routes = APIRouter(prefix=prefix, default_response_class=Response)
    for operation in endpoints.operations:
        endpoint = getattr(endpoints, operation.name)
        is_direct = [*inspect.signature(endpoint).parameters] == ["request", "caller"]
        routes.add_api_route(
            operation.path,
            endpoint,
            methods=[operation.method],
            dependencies=[Depends(_needs(operation.needs))],
            route_class_override=_Direct if is_direct else None,
            **contract.described(operation),
        )
    return routes


def _needs(role: Role) -> Callable[[Who], Awaitable[None]]:
    async def check(caller: Who) -> None:
        if not caller.role.includes(role):
            raise ForbiddenError(
                f"this needs the role {role}, and the token of {caller.user} has {caller.role};"
                " ask an administrator for another token"
            )

    return check


def _openapi(
    app: FastAPI, endpoints: Sequence[Endpoints], generate: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Complete the document once."""
    if app.openapi_schema is None:
        contract.complete(generate(), [o for part in endpoints for o in part.operations])
    assert app.openapi_schema is not None
    return app.openapi_schema


async def _sokovan_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SokovanError)
    return problem_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = [{**found, "loc": found["loc"][1:]} for found in error.errors()]  # not: query, path
    return problem_response(invalid(places))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    nowhere = InvalidRequestError(f"{request.method} {request.scope['path']}: {error.detail}")
    return problem_response(nowhere, http_status=error.status_code, headers=error.headers)
