"""The tables of users come and go, on both databases; removing a user takes along what is only this user's."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, inspect, select

from store import migrate
from store.db import Database
from store.models_base import now
from store.models_nodes import RemoteNode
from store.models_users import ApiToken, User, UserSession


def test_users_come_and_go_and_nothing_else_does(database: Database) -> None:
    with database.begin() as session:
        session.add(
            RemoteNode(name="pacs", ae_title="X", host="h", port=1, retrieve="move", tls=False, created_at=now())
        )
        session.add(User(name="ann", role="viewer", created_at=now(), created_by="cli"))
    migrate.downgrade(database, "0009")
    assert not {"user_account", "user_session", "api_token", "login_attempt", "oidc_login"} & set(
        inspect(database.engine).get_table_names()
    )
    migrate.upgrade(database)
    with database.read() as session:
        assert session.scalars(select(RemoteNode.name)).all() == ["pacs"]
        assert session.scalars(select(User)).all() == []


def test_what_is_of_a_user_goes_with_the_user(database: Database) -> None:
    at = now()
    with database.begin() as session:
        user = User(name="ann", role="viewer", created_at=at, created_by="cli")
        session.add(user)
        session.flush()
        session.add(
            UserSession(
                digest="d", user_id=user.id, created_at=at, seen_at=at, expires_at=at, how="password", address="::1"
            )
        )
        session.add(
            ApiToken(
                name="t", user_id=user.id, digest="e", prefix="b", scopes=["viewer"], created_at=at, created_by="ann",
                expires_at=at + timedelta(days=1),
            )
        )  # fmt: skip
    with database.begin() as session:
        session.execute(delete(User))
    with database.read() as session:
        assert session.scalars(select(UserSession)).all() == [] == session.scalars(select(ApiToken)).all()
