"""Tokens, and what was done with them."""

from typing import Annotated, Literal

from fastapi import Query, Request
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

from sokovan.api.answers import Stamp
from sokovan.api.asked import Who, body_of, json_of
from sokovan.api.models import Body, checked_body
from sokovan.api.operation import Operation
from sokovan.api.texts import NAME_LENGTH_MAX, Cursor, Label, Name, printable
from sokovan.api.tokens import Tokens
from sokovan.domain.access import Role

LIFETIME_S_MAX = 100 * 365 * 86_400.0
AUDIT_MAX = 1000


class TokenBody(Body):
    """A token to make."""

    user: Name
    role: Literal["admin", "user", "read-only"] = "user"
    label: Label = ""
    lifetime_s: Annotated[float, Field(gt=0, le=LIFETIME_S_MAX)] | None = None


class Token(BaseModel):
    """A token, without its secret."""

    id: str
    user: str
    role: Role
    label: str
    state: Literal["good", "expired", "revoked"]
    created_at: Stamp
    created_by: str
    expires_at: Stamp | None
    revoked_at: Stamp | None


class NewToken(Token):
    """A token that was just made: the only time that its secret is shown."""

    token: str


class TokenList(BaseModel):
    """The tokens that the caller may see."""

    items: list[Token]


class AuditLine(BaseModel):
    """Who changed what, and from where."""

    line: int
    at: Stamp
    user: str
    token_id: str | None
    address: str
    action: str
    target: str
    detail: str


class Audit(BaseModel):
    """A page of audit lines, newest first."""

    items: list[AuditLine]
    next_cursor: str | None


class Myself(BaseModel):
    """Who the caller is to this server."""

    user: str
    role: Role
    token_id: str | None
    address: str


class TokenEndpoints:
    """What is asked about tokens and by whom."""

    operations = (
        Operation("GET", "/whoami", "whoami", (Myself,)),
        Operation("GET", "/tokens", "tokens", (TokenList,)),
        Operation(
            "POST", "/tokens", "create_token", (NewToken,), (TokenBody,), Role.ADMIN, status=201
        ),
        Operation(
            "DELETE",
            "/tokens/{token_id}",
            "revoke_token",
            (Token,),
            needs=Role.USER,
            names_one=True,
        ),
        Operation("GET", "/audit", "audit", (Audit,), needs=Role.ADMIN),
    )

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def whoami(self, caller: Who) -> Response:
        """Return who the caller is: user, role, token and address."""
        return json_of(
            {
                "user": caller.user,
                "role": caller.role.value,
                "token_id": caller.token_id,
                "address": caller.address,
            }
        )

    async def tokens(self, caller: Who) -> Response:
        """Return the tokens of the caller's user, for an administrator all; never the secrets."""
        return json_of({"items": await self._tokens.listed(caller=caller)})

    async def create_token(self, request: Request, caller: Who) -> Response:
        """Make a token; its secret is in this answer and nowhere else."""
        asked = checked_body(TokenBody, await body_of(request))
        view = await self._tokens.create(
            asked.user,
            Role(asked.role),
            caller=caller,
            label=asked.label,
            lifetime_s=asked.lifetime_s,
        )
        return json_of(view, status=201)

    async def revoke_token(self, token_id: str, caller: Who) -> Response:
        """Have a token let nobody in any more, at once."""
        return json_of(await self._tokens.revoke(token_id, caller=caller))

    async def audit(
        self,
        user: Annotated[
            str | None, Query(max_length=NAME_LENGTH_MAX), AfterValidator(printable)
        ] = None,
        limit: Annotated[int, Query(ge=1, le=AUDIT_MAX)] = 100,
        cursor: Cursor | None = None,
    ) -> Response:
        """List who changed what, newest first."""
        before = None if cursor is None else int(cursor)
        return json_of(await self._tokens.audit(user=user, limit=limit, before=before))
