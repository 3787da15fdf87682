"""REST of select-uncertain: policies, rounds, candidates, decisions, statistics."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.contracts.problem import Problem, not_found
from services.contracts.projects import SelectionPolicy
from services.runtime import http
from services.runtime.access import Project, needs
from services.select_uncertain import stats
from services.select_uncertain.asking import Asking
from services.select_uncertain.policies import check
from services.select_uncertain.rounds import why_wait
from services.select_uncertain.rules import Tree
from services.select_uncertain.stream import TopK
from services.select_uncertain.trial import PolicyTest, tried

PolicyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class RoundRequest(BaseModel):
    """Ask for a round now."""

    model_config = ConfigDict(extra="forbid")

    policy: str | None = Field(default=None, description="id of a policy; default: the one in force")
    budget: int | None = Field(default=None, gt=0, le=10_000)
    dry_run: bool = False


def routes(asking: Asking) -> APIRouter:
    """The routes, bound to the service's rounds."""
    router = APIRouter(route_class=http.StrictRoute)
    _policy_routes(router, asking)
    _round_routes(router, asking)
    _read_routes(router, asking)
    return router


def _policy_routes(router: APIRouter, asking: Asking) -> None:
    @router.put(
        "/v1/policies/{policy_id}",
        dependencies=[needs("operator")],
        responses={201: {"description": "A first version"}},
    )
    async def put_policy(
        policy_id: PolicyId,
        policy: SelectionPolicy,
        project: Project,
        response: Response,
        if_match: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        document = await asking.policies.put(project, policy_id, policy, if_match)
        response.status_code = 201 if document["version"] == 1 else 200
        response.headers["etag"] = f'"{document["version"]}"'
        return document

    @router.get("/v1/policies/{policy_id}", dependencies=[needs("viewer")])
    async def get_policy(policy_id: str, project: Project, response: Response) -> dict[str, Any]:
        document = await asking.policies.get(project, policy_id)
        response.headers["etag"] = f'"{document["version"]}"'
        return document

    @router.get("/v1/policies/{policy_id}/versions", dependencies=[needs("viewer")])
    async def policy_versions(policy_id: str, project: Project) -> dict[str, Any]:
        return http.page(await asking.policies.versions(project, policy_id), None)

    @router.post("/v1/policies/{policy_id}:test", dependencies=[needs("operator")])
    async def test_policy(policy_id: str, body: PolicyTest, project: Project) -> dict[str, Any]:
        document = await asking.service.projects.need(project)
        policy = body.policy
        if policy is None:
            policy = SelectionPolicy.model_validate(await asking.policies.get(project, policy_id))
        check(policy, document.task)
        pool = asking.candidates.pool(project)
        await asking.fetch_vectors(pool, [*pool.ready(), *pool.in_state("SELECTED", "LABELED")])
        return await tried(pool, policy, body, asking.service.clock.now())


def _round_routes(router: APIRouter, asking: Asking) -> None:
    @router.post("/v1/rounds", status_code=202, dependencies=[needs("operator")])
    async def open_round(body: RoundRequest, project: Project) -> dict[str, Any]:
        document = await asking.service.projects.need(project)
        if body.policy is None:
            policy = await asking.policies.current(project)
        else:
            policy = SelectionPolicy.model_validate(await asking.policies.get(project, body.policy))
        return await asking.open_round(document, policy, body.budget, body.dry_run)

    @router.get("/v1/rounds/{round_id}", dependencies=[needs("viewer")])
    async def get_round(round_id: str, project: Project) -> dict[str, Any]:
        key = f"rnd:{project}:{round_id}"
        entry = (await asking.service.state.get([key])).get(key)
        if entry is None:
            raise not_found("round", round_id)
        return entry.value


def _read_routes(router: APIRouter, asking: Asking) -> None:
    @router.get("/v1/candidates", dependencies=[needs("viewer")])
    async def candidates(
        project: Project,
        sort: Literal["score", "id"] = "id",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        await asking.service.projects.need(project)
        aggregate = (await asking.policies.current(project)).aggregate
        waiting = {c.sample_id: c for c in asking.candidates.pool(project).in_state("CANDIDATE")}
        score = {name: c.unsure(aggregate) for name, c in waiting.items()}
        names, more = _page(score, sort, limit, http.read_cursor(cursor))
        rows = [{"sample_id": name, "score": score[name], "version": waiting[name].version} for name in names]
        return http.page(rows, more)

    @router.get("/v1/decisions/{sample_id}", dependencies=[needs("viewer")])
    async def decision(sample_id: str, project: Project) -> dict[str, Any]:
        pool = asking.candidates.pool(project)
        candidate = pool.candidates.get(sample_id)
        if candidate is None:
            raise not_found("sample", sample_id)
        shown = {"sample_id": sample_id, "state": candidate.state, "decision": candidate.decision}
        if candidate.state == "CANDIDATE" and candidate.version:
            policy = await asking.policies.current(project)
            judged = Tree(policy.where).judge(candidate.facts(pool.active), pool.ledger(asking.service.clock.now()))
            reference = {"id": policy.id, "version": policy.version}
            shown["now"] = {"policy": reference, "passed": judged.passed, "rules": judged.told()}
        return shown

    @router.get("/v1/stats", dependencies=[needs("viewer")])
    async def get_stats(project: Project) -> dict[str, Any]:
        return await _stats(asking, project)


def _page(
    score: Mapping[str, float], sort: Literal["score", "id"], limit: int, cursor: str | None
) -> tuple[list[str], str | None]:
    """Samples behind the cursor, the place of one in the order: it holds when the sample has gone meanwhile."""
    last, after = _place(cursor) if cursor is not None else (np.inf, "")
    names = np.array(sorted(score), dtype=np.str_)
    values = np.array([score[name] for name in names]) if sort == "score" else np.zeros(len(names))
    if cursor is not None:
        behind = (values < last) | ((values == last) & (names > after))
        names, values = names[behind], values[behind]
    top = TopK(limit + 1)
    top.push(values, names)
    found = top.best()
    more = "{1!r} {0}".format(*found[limit - 1]) if len(found) > limit else None
    return [name for name, _ in found[:limit]], more


def _place(cursor: str) -> tuple[float, str]:
    score, _, sample = cursor.partition(" ")
    try:
        return float(score), sample
    except ValueError as error:
        raise Problem(400, "bad-cursor", "This cursor is none that this list gave out.") from error


async def _stats(asking: Asking, project: str) -> dict[str, Any]:
    document = await asking.service.projects.need(project)
    pool = asking.candidates.pool(project)
    policy = await asking.policies.current(project)
    key = f"rounds:{project}"
    rounds = (await asking.service.state.get([key])).get(key)
    dropped = rounds.value.get("dropped", {}) if rounds else {}
    return {
        **stats.of_pool(pool, policy.aggregate),
        **await stats.of_policy(pool, policy, dropped),
        "waiting_for": why_wait(pool, document, policy, asking.service.clock.now()),
    }
