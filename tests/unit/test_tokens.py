"""Tokens: who is let in, what each role may do and see, and who is written down."""

import contextlib

import pytest
from sqlalchemy import select

from sokovan.clock import ManualClock
from sokovan.store.tables import metadata
from tests.build import NOW, a_repository, a_spec, submitted
from tests.served import bearer, served


@contextlib.asynccontextmanager
async def house(repository, **users):
    """Give a client, and for each user the headers of a token with that role."""
    async with served(repository) as http:
        headers = {}
        for user, role in users.items():
            made = await http.post("/v1/tokens", json={"user": user, "role": role})
            assert made.status_code == 201
            headers[user] = bearer(made.json()["token"])
        yield http, headers


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def repository(clock):
    return a_repository(clock=clock)


def code(response):
    return response.status_code, response.json().get("code")


async def test_a_token_says_who_asks(repository):
    async with house(repository, ann="user") as (http, headers):
        myself = (await http.get("/v1/whoami", headers=headers["ann"])).json()
        session = await http.post(
            "/v1/sessions", json={"command": ["true"], "cpu_milli": 0}, headers=headers["ann"]
        )

        assert (myself["user"], myself["role"]) == ("ann", "user")
        assert session.json()["owner"] == "ann"


def everything(tx):
    """Write down every row of every table."""
    rows = (row for table in metadata.tables.values() for row in tx.execute(select(table)))
    return "\n".join(map(str, rows))


async def test_the_secret_is_shown_once_and_kept_nowhere(repository):
    async with house(repository) as (http, _):
        made = (await http.post("/v1/tokens", json={"user": "ann"})).json()
        secret = made["token"].split("_", 2)[2]  # it may have more of them
        listed = (await http.get("/v1/tokens")).json()["items"]

        dump = await repository._database.read(everything)

        assert [item["id"] for item in listed] == [made["id"]]
        assert secret not in str(listed)
        assert secret not in dump
        assert made["id"] in dump


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_token_that_is_no_good_any_more_lets_nobody_in(repository, clock, end):
    async with house(repository) as (http, _):
        made = (await http.post("/v1/tokens", json={"user": "ann", "lifetime_s": 60})).json()
        headers = bearer(made["token"])
        assert (await http.get("/v1/sessions", headers=headers)).status_code == 200

        if end == "revoked":
            await http.delete(f"/v1/tokens/{made['id']}")
        else:
            clock.advance(60)

        assert code(await http.get("/v1/sessions", headers=headers)) == (401, "unauthorized")
        assert (await http.get("/v1/tokens")).json()["items"][0]["state"] == end


async def test_tokens_hold_beyond_the_life_of_a_server(repository):
    async with house(repository, ann="user") as (_, headers):
        pass
    async with served(repository) as http:
        assert (await http.get("/v1/whoami", headers=headers["ann"])).json()["user"] == "ann"


@pytest.mark.parametrize("change", [b"x", b"\xe9", b"_", b""])
async def test_a_secret_that_is_nearly_right_is_wrong(repository, change):
    async with house(repository) as (http, _):
        token = (await http.post("/v1/tokens", json={"user": "ann"})).json()["token"].encode()
        wrong = {"authorization": b"Bearer " + token[:-1] + change}

        assert code(await http.get("/v1/whoami", headers=wrong)) == (401, "unauthorized")


async def test_others_see_the_shape_of_a_session_and_nothing_of_what_it_runs(repository):
    secret = a_spec(command=("train", "--key=hunter2"), cwd="/home/ann/hunter2", owner="ann")
    (session_id,) = await submitted(repository, secret)
    async with house(repository, ann="read-only", bob="user") as (http, headers):
        for path in ("", "/why", "/eta", "/history", "/wait?timeout_s=0"):
            seen = await http.get(f"/v1/sessions/{session_id}{path}", headers=headers["bob"])
            assert seen.status_code == 200
            assert "hunter2" not in seen.text
        listed = await http.get("/v1/sessions", headers=headers["bob"])
        own = await http.get(f"/v1/sessions/{session_id}", headers=headers["ann"])

        assert "hunter2" not in listed.text
        assert listed.json()["items"][0]["owner"] == "ann"
        assert own.json()["command"] == ["train", "--key=hunter2"]
        output = f"/v1/sessions/{session_id}/output"
        assert code(await http.get(output, headers=headers["bob"])) == (403, "forbidden")
        assert (await http.get(output, headers=headers["ann"])).status_code == 200


@pytest.mark.parametrize("action", ["cancel", "hold", "release"])
async def test_only_the_owner_and_administrators_change_a_session(repository, action):
    (session_id,) = await submitted(repository, a_spec(owner="ann"))
    users = {"ann": "user", "bob": "user", "eve": "read-only", "root": "admin"}
    async with house(repository, **users) as (http, headers):
        path = f"/v1/sessions/{session_id}/{action}"

        assert code(await http.post(path, headers=headers["bob"])) == (403, "forbidden")
        assert code(await http.post(path, headers=headers["eve"])) == (403, "forbidden")
        assert (await http.post(path, headers=headers["ann"])).status_code == 200
        assert (await http.post(path, headers=headers["root"])).status_code == 200


async def test_only_administrators_submit_for_others(repository):
    body = {"command": ["true"], "owner": "ann", "allow_infeasible": True}
    async with house(repository, bob="user", root="admin") as (http, headers):
        refused = await http.post("/v1/sessions", json=body, headers=headers["bob"])
        rehearsed = await http.post("/v1/sessions/dry-run", json=body, headers=headers["bob"])
        taken = await http.post("/v1/sessions", json=body, headers=headers["root"])

        assert code(refused) == code(rehearsed) == (403, "forbidden")
        assert refused.json()["field"] == "owner"
        assert taken.json()["owner"] == "ann"


async def test_each_operation_asks_for_its_role(repository):
    """What changes nothing is open to all; what is not about one's own sessions, to few."""
    roles = {"eve": "read-only", "bob": "user"}
    async with house(repository, **roles) as (http, headers):
        document = (await http.get("/v1/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                needed = operation.get("x-sokovan-role")
                if needed in {None, "read-only"}:
                    assert method == "get" or path.endswith("dry-run")
                    continue
                address = path.replace("{ref}", "nothing").replace("_id}", "}")
                for user, role in roles.items():
                    if needed == "admin" or role == "read-only":
                        answer = await http.request(method, address, headers=headers[user])
                        assert code(answer) == (403, "forbidden"), (user, method, path)


async def test_users_see_and_revoke_their_own_tokens_and_no_others(repository):
    async with house(repository, ann="user", bob="user") as (http, headers):
        (own,) = (await http.get("/v1/tokens", headers=headers["ann"])).json()["items"]
        (other,) = (await http.get("/v1/tokens", headers=headers["bob"])).json()["items"]

        refused = await http.delete(f"/v1/tokens/{other['id']}", headers=headers["ann"])
        revoked = await http.delete(f"/v1/tokens/{own['id']}", headers=headers["ann"])

        assert own["user"] == "ann"
        assert code(refused) == (404, "token-not-found")
        assert revoked.json()["state"] == "revoked"


async def test_every_change_is_written_down_with_who_and_from_where(repository):
    (session_id,) = await submitted(repository, a_spec(owner="ann"))
    async with house(repository, ann="user") as (http, headers):
        await http.post(f"/v1/sessions/{session_id}/hold", headers=headers["ann"])
        await http.post(f"/v1/sessions/{session_id}/cancel", headers=headers["ann"])
        token = (await http.get("/v1/whoami", headers=headers["ann"])).json()["token_id"]
        found = (await http.get("/v1/audit", params={"user": "ann"})).json()["items"]
        everyone = (await http.get("/v1/audit", params={"limit": 2})).json()
        rest = (await http.get("/v1/audit", params={"cursor": everyone["next_cursor"]})).json()

        assert [(line["action"], line["target"]) for line in found] == [
            ("cancel", session_id),
            ("hold", session_id),
        ]
        assert {(line["token_id"], line["address"]) for line in found} == {(token, "127.0.0.1")}
        assert [line["action"] for line in rest["items"]] == ["token create"]
        assert code(await http.get("/v1/audit", headers=headers["ann"])) == (403, "forbidden")


async def test_what_is_refused_is_not_written_down_as_done(repository):
    (session_id,) = await submitted(repository, a_spec(owner="ann"))
    async with house(repository, bob="user") as (http, headers):
        await http.post(f"/v1/sessions/{session_id}/cancel", headers=headers["bob"])

        assert (await http.get("/v1/audit", params={"user": "bob"})).json()["items"] == []
