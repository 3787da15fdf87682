"""A method for each route of each service. Written by `python -m services.client.generate`; not by hand."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol
from urllib.parse import quote


class Caller(Protocol):
    """Whatever carries the calls out."""

    def call(self, method: str, app_id: str, path: str, **given: Any) -> Any: ...

    def stream(self, app_id: str, path: str, **params: Any) -> AbstractContextManager[Iterator[str]]: ...


class Ingest:
    """The routes of ingest."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "ingest", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "ingest", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "ingest", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "ingest", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST", "ingest", f"/v1/deadletters/{quote(str(letter), safe='')}/replay", json=json, content=content
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST", "ingest", f"/v1/deadletters/{quote(str(letter), safe='')}/discard", json=json, content=content
        )

    def post_samples(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/samples"""
        return self._caller.call(
            "POST", "ingest", "/v1/samples", params={"project": project}, json=json, content=content
        )

    def get_samples(
        self,
        *,
        state: str | None = None,
        tag: str | None = None,
        stream: str | None = None,
        attribute: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        project: str | None = None,
    ) -> Any:
        """GET /v1/samples"""
        return self._caller.call(
            "GET",
            "ingest",
            "/v1/samples",
            params={
                "state": state,
                "tag": tag,
                "stream": stream,
                "attribute": attribute,
                "from": from_,
                "to": to,
                "limit": limit,
                "cursor": cursor,
                "project": project,
            },
        )

    def post_samples_batch(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/samples:batch"""
        return self._caller.call(
            "POST", "ingest", "/v1/samples:batch", params={"project": project}, json=json, content=content
        )

    def delete_sample(
        self, sample: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """DELETE /v1/samples/{sample}"""
        return self._caller.call(
            "DELETE",
            "ingest",
            f"/v1/samples/{quote(str(sample), safe='')}",
            params={"project": project},
            json=json,
            content=content,
        )

    def get_sample(self, sample: str, *, project: str | None = None) -> Any:
        """GET /v1/samples/{sample}"""
        return self._caller.call(
            "GET", "ingest", f"/v1/samples/{quote(str(sample), safe='')}", params={"project": project}
        )

    def get_sample_content(self, sample: str, *, project: str | None = None) -> Any:
        """GET /v1/samples/{sample}/content"""
        return self._caller.call(
            "GET", "ingest", f"/v1/samples/{quote(str(sample), safe='')}/content", params={"project": project}
        )

    def get_sample_history(self, sample: str, *, project: str | None = None) -> Any:
        """GET /v1/samples/{sample}/history"""
        return self._caller.call(
            "GET", "ingest", f"/v1/samples/{quote(str(sample), safe='')}/history", params={"project": project}
        )

    def get_stats(self, *, project: str | None = None) -> Any:
        """GET /v1/stats"""
        return self._caller.call("GET", "ingest", "/v1/stats", params={"project": project})

    def get_buffer(self) -> Any:
        """GET /v1/buffer"""
        return self._caller.call("GET", "ingest", "/v1/buffer")

    def post_buffer_flush(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/buffer:flush"""
        return self._caller.call(
            "POST", "ingest", "/v1/buffer:flush", params={"project": project}, json=json, content=content
        )

    def get_sources(self, *, project: str | None = None) -> Any:
        """GET /v1/sources"""
        return self._caller.call("GET", "ingest", "/v1/sources", params={"project": project})

    def get_source(self, name: str, *, project: str | None = None) -> Any:
        """GET /v1/sources/{name}"""
        return self._caller.call(
            "GET", "ingest", f"/v1/sources/{quote(str(name), safe='')}", params={"project": project}
        )

    def post_source_capture(
        self, name: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/sources/{name}:capture"""
        return self._caller.call(
            "POST",
            "ingest",
            f"/v1/sources/{quote(str(name), safe='')}:capture",
            params={"project": project},
            json=json,
            content=content,
        )


class Infer:
    """The routes of infer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "infer", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "infer", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "infer", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "infer", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST", "infer", f"/v1/deadletters/{quote(str(letter), safe='')}/replay", json=json, content=content
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST", "infer", f"/v1/deadletters/{quote(str(letter), safe='')}/discard", json=json, content=content
        )

    def get_loaded_models(self, *, project: str | None = None) -> Any:
        """GET /v1/loaded-models"""
        return self._caller.call("GET", "infer", "/v1/loaded-models", params={"project": project})

    def get_shadow(self, *, version: str | None = None, project: str | None = None) -> Any:
        """GET /v1/shadow"""
        return self._caller.call("GET", "infer", "/v1/shadow", params={"version": version, "project": project})

    def post_model_load(
        self, version: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/models/{version}:load"""
        return self._caller.call(
            "POST",
            "infer",
            f"/v1/models/{quote(str(version), safe='')}:load",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_model_unload(
        self, version: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/models/{version}:unload"""
        return self._caller.call(
            "POST",
            "infer",
            f"/v1/models/{quote(str(version), safe='')}:unload",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_predict(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/predict"""
        return self._caller.call(
            "POST", "infer", "/v1/predict", params={"project": project}, json=json, content=content
        )

    def post_rescore(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/rescore"""
        return self._caller.call(
            "POST", "infer", "/v1/rescore", params={"project": project}, json=json, content=content
        )

    def get_rescore_list(self, *, project: str | None = None) -> Any:
        """GET /v1/rescore"""
        return self._caller.call("GET", "infer", "/v1/rescore", params={"project": project})

    def get_rescore(self, name: str, *, project: str | None = None) -> Any:
        """GET /v1/rescore/{name}"""
        return self._caller.call(
            "GET", "infer", f"/v1/rescore/{quote(str(name), safe='')}", params={"project": project}
        )

    def delete_rescore(
        self, name: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """DELETE /v1/rescore/{name}"""
        return self._caller.call(
            "DELETE",
            "infer",
            f"/v1/rescore/{quote(str(name), safe='')}",
            params={"project": project},
            json=json,
            content=content,
        )


class SelectUncertain:
    """The routes of select-uncertain."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "select-uncertain", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "select-uncertain", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "select-uncertain", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call(
            "GET", "select-uncertain", "/v1/deadletters", params={"limit": limit, "cursor": cursor}
        )

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST",
            "select-uncertain",
            f"/v1/deadletters/{quote(str(letter), safe='')}/replay",
            json=json,
            content=content,
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST",
            "select-uncertain",
            f"/v1/deadletters/{quote(str(letter), safe='')}/discard",
            json=json,
            content=content,
        )

    def put_policy(
        self,
        policy_id: str,
        *,
        project: str | None = None,
        if_match: str | None = None,
        json: Any = None,
        content: bytes | None = None,
    ) -> Any:
        """PUT /v1/policies/{policy_id}"""
        return self._caller.call(
            "PUT",
            "select-uncertain",
            f"/v1/policies/{quote(str(policy_id), safe='')}",
            params={"project": project},
            headers={"if-match": if_match},
            json=json,
            content=content,
        )

    def get_policy(self, policy_id: str, *, project: str | None = None) -> Any:
        """GET /v1/policies/{policy_id}"""
        return self._caller.call(
            "GET", "select-uncertain", f"/v1/policies/{quote(str(policy_id), safe='')}", params={"project": project}
        )

    def get_policy_versions(self, policy_id: str, *, project: str | None = None) -> Any:
        """GET /v1/policies/{policy_id}/versions"""
        return self._caller.call(
            "GET",
            "select-uncertain",
            f"/v1/policies/{quote(str(policy_id), safe='')}/versions",
            params={"project": project},
        )

    def post_policy_test(
        self, policy_id: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/policies/{policy_id}:test"""
        return self._caller.call(
            "POST",
            "select-uncertain",
            f"/v1/policies/{quote(str(policy_id), safe='')}:test",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_rounds(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/rounds"""
        return self._caller.call(
            "POST", "select-uncertain", "/v1/rounds", params={"project": project}, json=json, content=content
        )

    def get_round(self, round_id: str, *, project: str | None = None) -> Any:
        """GET /v1/rounds/{round_id}"""
        return self._caller.call(
            "GET", "select-uncertain", f"/v1/rounds/{quote(str(round_id), safe='')}", params={"project": project}
        )

    def get_candidates(
        self,
        *,
        sort: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        project: str | None = None,
    ) -> Any:
        """GET /v1/candidates"""
        return self._caller.call(
            "GET",
            "select-uncertain",
            "/v1/candidates",
            params={"sort": sort, "limit": limit, "cursor": cursor, "project": project},
        )

    def get_decision(self, sample_id: str, *, project: str | None = None) -> Any:
        """GET /v1/decisions/{sample_id}"""
        return self._caller.call(
            "GET", "select-uncertain", f"/v1/decisions/{quote(str(sample_id), safe='')}", params={"project": project}
        )

    def get_stats(self, *, project: str | None = None) -> Any:
        """GET /v1/stats"""
        return self._caller.call("GET", "select-uncertain", "/v1/stats", params={"project": project})


class LabelQueue:
    """The routes of label-queue."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "label-queue", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "label-queue", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "label-queue", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "label-queue", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST", "label-queue", f"/v1/deadletters/{quote(str(letter), safe='')}/replay", json=json, content=content
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST", "label-queue", f"/v1/deadletters/{quote(str(letter), safe='')}/discard", json=json, content=content
        )

    def post_tasks_claim(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/tasks:claim"""
        return self._caller.call(
            "POST", "label-queue", "/v1/tasks:claim", params={"project": project}, json=json, content=content
        )

    def post_task_heartbeat(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}:heartbeat"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}:heartbeat",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_task_release(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}:release"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}:release",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_task_skip(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}:skip"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}:skip",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_task_annotations(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}/annotations"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}/annotations",
            params={"project": project},
            json=json,
            content=content,
        )

    def delete_annotation(
        self,
        annotation: str,
        *,
        annotator: str | None = None,
        project: str | None = None,
        json: Any = None,
        content: bytes | None = None,
    ) -> Any:
        """DELETE /v1/annotations/{annotation}"""
        return self._caller.call(
            "DELETE",
            "label-queue",
            f"/v1/annotations/{quote(str(annotation), safe='')}",
            params={"annotator": annotator, "project": project},
            json=json,
            content=content,
        )

    def post_task_unskip(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}:unskip"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}:unskip",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_task_resolve(
        self, task: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/tasks/{task}:resolve"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/tasks/{quote(str(task), safe='')}:resolve",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_sample_label_retract(
        self, sample: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/samples/{sample}/label:retract"""
        return self._caller.call(
            "POST",
            "label-queue",
            f"/v1/samples/{quote(str(sample), safe='')}/label:retract",
            params={"project": project},
            json=json,
            content=content,
        )

    def get_tasks(
        self,
        *,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        project: str | None = None,
    ) -> Any:
        """GET /v1/tasks"""
        return self._caller.call(
            "GET",
            "label-queue",
            "/v1/tasks",
            params={"state": state, "limit": limit, "cursor": cursor, "project": project},
        )

    def get_task(self, task: str, *, project: str | None = None) -> Any:
        """GET /v1/tasks/{task}"""
        return self._caller.call(
            "GET", "label-queue", f"/v1/tasks/{quote(str(task), safe='')}", params={"project": project}
        )

    def get_sample(self, sample: str, *, project: str | None = None) -> Any:
        """GET /v1/samples/{sample}"""
        return self._caller.call(
            "GET", "label-queue", f"/v1/samples/{quote(str(sample), safe='')}", params={"project": project}
        )

    def get_task_content(self, task: str, *, project: str | None = None) -> Any:
        """GET /v1/tasks/{task}/content"""
        return self._caller.call(
            "GET", "label-queue", f"/v1/tasks/{quote(str(task), safe='')}/content", params={"project": project}
        )

    def get_stats(self, *, project: str | None = None) -> Any:
        """GET /v1/stats"""
        return self._caller.call("GET", "label-queue", "/v1/stats", params={"project": project})

    def get_agreement(self, *, project: str | None = None) -> Any:
        """GET /v1/agreement"""
        return self._caller.call("GET", "label-queue", "/v1/agreement", params={"project": project})

    def get_pace(self, *, project: str | None = None) -> Any:
        """GET /v1/pace"""
        return self._caller.call("GET", "label-queue", "/v1/pace", params={"project": project})

    def get_annotators(self, *, project: str | None = None) -> Any:
        """GET /v1/annotators"""
        return self._caller.call("GET", "label-queue", "/v1/annotators", params={"project": project})

    def get_schema(self, name: str) -> Any:
        """GET /v1/schemas/{name}"""
        return self._caller.call("GET", "label-queue", f"/v1/schemas/{quote(str(name), safe='')}")

    def put_schema(
        self, name: str, *, if_match: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """PUT /v1/schemas/{name}"""
        return self._caller.call(
            "PUT",
            "label-queue",
            f"/v1/schemas/{quote(str(name), safe='')}",
            headers={"if-match": if_match},
            json=json,
            content=content,
        )

    def get_export(
        self,
        *,
        format: str | None = None,
        snapshot: str | None = None,
        revision: str | None = None,
        project: str | None = None,
    ) -> Any:
        """GET /v1/export"""
        return self._caller.call(
            "GET",
            "label-queue",
            "/v1/export",
            params={"format": format, "snapshot": snapshot, "revision": revision, "project": project},
        )

    def post_import(
        self,
        *,
        split: str | None = None,
        format: str | None = None,
        project: str | None = None,
        json: Any = None,
        content: bytes | None = None,
    ) -> Any:
        """POST /v1/import"""
        return self._caller.call(
            "POST",
            "label-queue",
            "/v1/import",
            params={"split": split, "format": format, "project": project},
            json=json,
            content=content,
        )


class RetrainTrigger:
    """The routes of retrain-trigger."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "retrain-trigger", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "retrain-trigger", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "retrain-trigger", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "retrain-trigger", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST",
            "retrain-trigger",
            f"/v1/deadletters/{quote(str(letter), safe='')}/replay",
            json=json,
            content=content,
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST",
            "retrain-trigger",
            f"/v1/deadletters/{quote(str(letter), safe='')}/discard",
            json=json,
            content=content,
        )

    def post_projects(self, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/projects"""
        return self._caller.call("POST", "retrain-trigger", "/v1/projects", json=json, content=content)

    def get_projects(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/projects"""
        return self._caller.call("GET", "retrain-trigger", "/v1/projects", params={"limit": limit, "cursor": cursor})

    def get_project(self, name: str) -> Any:
        """GET /v1/projects/{name}"""
        return self._caller.call("GET", "retrain-trigger", f"/v1/projects/{quote(str(name), safe='')}")

    def put_project(
        self, name: str, *, if_match: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """PUT /v1/projects/{name}"""
        return self._caller.call(
            "PUT",
            "retrain-trigger",
            f"/v1/projects/{quote(str(name), safe='')}",
            headers={"if-match": if_match},
            json=json,
            content=content,
        )

    def delete_project(
        self, name: str, *, if_match: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """DELETE /v1/projects/{name}"""
        return self._caller.call(
            "DELETE",
            "retrain-trigger",
            f"/v1/projects/{quote(str(name), safe='')}",
            headers={"if-match": if_match},
            json=json,
            content=content,
        )

    def get_trigger(self, name: str) -> Any:
        """GET /v1/triggers/{name}"""
        return self._caller.call("GET", "retrain-trigger", f"/v1/triggers/{quote(str(name), safe='')}")

    def put_trigger(
        self, name: str, *, if_match: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """PUT /v1/triggers/{name}"""
        return self._caller.call(
            "PUT",
            "retrain-trigger",
            f"/v1/triggers/{quote(str(name), safe='')}",
            headers={"if-match": if_match},
            json=json,
            content=content,
        )

    def post_runs(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/runs"""
        return self._caller.call(
            "POST", "retrain-trigger", "/v1/runs", params={"project": project}, json=json, content=content
        )

    def get_runs(self, *, limit: int | None = None, cursor: str | None = None, project: str | None = None) -> Any:
        """GET /v1/runs"""
        return self._caller.call(
            "GET", "retrain-trigger", "/v1/runs", params={"limit": limit, "cursor": cursor, "project": project}
        )

    def get_run(self, run: str, *, project: str | None = None) -> Any:
        """GET /v1/runs/{run}"""
        return self._caller.call(
            "GET", "retrain-trigger", f"/v1/runs/{quote(str(run), safe='')}", params={"project": project}
        )

    def post_run_cancel(
        self, run: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/runs/{run}:cancel"""
        return self._caller.call(
            "POST",
            "retrain-trigger",
            f"/v1/runs/{quote(str(run), safe='')}:cancel",
            params={"project": project},
            json=json,
            content=content,
        )

    def get_snapshot(self, snapshot: str, *, project: str | None = None) -> Any:
        """GET /v1/snapshots/{snapshot}"""
        return self._caller.call(
            "GET", "retrain-trigger", f"/v1/snapshots/{quote(str(snapshot), safe='')}", params={"project": project}
        )

    def get_snapshot_diff(self, snapshot: str, *, from_: str | None = None, project: str | None = None) -> Any:
        """GET /v1/snapshots/{snapshot}/diff"""
        return self._caller.call(
            "GET",
            "retrain-trigger",
            f"/v1/snapshots/{quote(str(snapshot), safe='')}/diff",
            params={"from": from_, "project": project},
        )

    def get_snapshot_content(self, snapshot: str, *, project: str | None = None) -> Any:
        """GET /v1/snapshots/{snapshot}/content"""
        return self._caller.call(
            "GET",
            "retrain-trigger",
            f"/v1/snapshots/{quote(str(snapshot), safe='')}/content",
            params={"project": project},
        )

    def get_models(self, *, limit: int | None = None, cursor: str | None = None, project: str | None = None) -> Any:
        """GET /v1/models"""
        return self._caller.call(
            "GET", "retrain-trigger", "/v1/models", params={"limit": limit, "cursor": cursor, "project": project}
        )

    def post_models(self, *, project: str | None = None, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/models"""
        return self._caller.call(
            "POST", "retrain-trigger", "/v1/models", params={"project": project}, json=json, content=content
        )

    def get_activation(self, *, project: str | None = None) -> Any:
        """GET /v1/activation"""
        return self._caller.call("GET", "retrain-trigger", "/v1/activation", params={"project": project})

    def get_models_compare(self, *, a: str | None = None, b: str | None = None, project: str | None = None) -> Any:
        """GET /v1/models/compare"""
        return self._caller.call(
            "GET", "retrain-trigger", "/v1/models/compare", params={"a": a, "b": b, "project": project}
        )

    def get_model(self, version: str, *, project: str | None = None) -> Any:
        """GET /v1/models/{version}"""
        return self._caller.call(
            "GET", "retrain-trigger", f"/v1/models/{quote(str(version), safe='')}", params={"project": project}
        )

    def post_model_activate(
        self, version: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/models/{version}:activate"""
        return self._caller.call(
            "POST",
            "retrain-trigger",
            f"/v1/models/{quote(str(version), safe='')}:activate",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_models_rollback(
        self, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/models:rollback"""
        return self._caller.call(
            "POST", "retrain-trigger", "/v1/models:rollback", params={"project": project}, json=json, content=content
        )

    def post_model_shadow(
        self, version: str, *, project: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/models/{version}:shadow"""
        return self._caller.call(
            "POST",
            "retrain-trigger",
            f"/v1/models/{quote(str(version), safe='')}:shadow",
            params={"project": project},
            json=json,
            content=content,
        )

    def post_run_callback(self, run: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/runs/{run}:callback"""
        return self._caller.call(
            "POST", "retrain-trigger", f"/v1/runs/{quote(str(run), safe='')}:callback", json=json, content=content
        )


class Uplink:
    """The routes of uplink."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "uplink", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "uplink", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "uplink", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "uplink", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST", "uplink", f"/v1/deadletters/{quote(str(letter), safe='')}/replay", json=json, content=content
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST", "uplink", f"/v1/deadletters/{quote(str(letter), safe='')}/discard", json=json, content=content
        )

    def get_project(self, name: str) -> Any:
        """GET /v1/projects/{name}"""
        return self._caller.call("GET", "uplink", f"/v1/projects/{quote(str(name), safe='')}")

    def get_uplink(self) -> Any:
        """GET /v1/uplink"""
        return self._caller.call("GET", "uplink", "/v1/uplink")


class Portal:
    """The routes of portal."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_metrics(self) -> Any:
        """GET /metrics"""
        return self._caller.call("GET", "portal", "/metrics")

    def get_openapi(self) -> Any:
        """GET /v1/openapi.json"""
        return self._caller.call("GET", "portal", "/v1/openapi.json")

    def get_info(self) -> Any:
        """GET /v1/info"""
        return self._caller.call("GET", "portal", "/v1/info")

    def get_deadletters(self, *, limit: int | None = None, cursor: str | None = None) -> Any:
        """GET /v1/deadletters"""
        return self._caller.call("GET", "portal", "/v1/deadletters", params={"limit": limit, "cursor": cursor})

    def post_deadletter_replay(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/replay"""
        return self._caller.call(
            "POST", "portal", f"/v1/deadletters/{quote(str(letter), safe='')}/replay", json=json, content=content
        )

    def post_deadletter_discard(self, letter: str, *, json: Any = None, content: bytes | None = None) -> Any:
        """POST /v1/deadletters/{letter}/discard"""
        return self._caller.call(
            "POST", "portal", f"/v1/deadletters/{quote(str(letter), safe='')}/discard", json=json, content=content
        )

    def get_me(self) -> Any:
        """GET /v1/me"""
        return self._caller.call("GET", "portal", "/v1/me")

    def get_events(
        self, *, project: str | None = None, last_event_id: str | None = None
    ) -> AbstractContextManager[Iterator[str]]:
        """GET /v1/events"""
        return self._caller.stream("portal", "/v1/events", project=project)

    def get_notifications(self) -> Any:
        """GET /v1/notifications"""
        return self._caller.call("GET", "portal", "/v1/notifications")

    def post_notifications_test(
        self, *, rule: str | None = None, json: Any = None, content: bytes | None = None
    ) -> Any:
        """POST /v1/notifications:test"""
        return self._caller.call(
            "POST", "portal", "/v1/notifications:test", params={"rule": rule}, json=json, content=content
        )
