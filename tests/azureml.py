"""A stand-in for an Azure ML workspace: below the real SDK, in the place of the network.

It counts, and it answers as the REST API does for jobs (api-version 2025-01-01-preview): PUT, GET and cancel of
/jobs/{name}, and GET of the workspace. Nothing in it was recorded from Azure.
"""

import json
import time
from typing import Any

import requests
from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest._requests_basic import RestRequestsTransportResponse

SCOPE = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"


TRACKING = f"northeurope.api.azureml.ms/mlflow/v1.0{SCOPE}"


class Nobody:
    """A credential whose tokens are worth nothing."""

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("x.y.z", int(time.time()) + 3600)

    def get_token_info(self, *_: str, **__: Any) -> AccessTokenInfo:
        return AccessTokenInfo("x.y.z", int(time.time()) + 3600)


class Workspace(RequestsTransport):
    """Jobs by name; `status` is what a job is said to be."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.away = False
        self.refusal: dict[str, Any] | None = None

    def client(self) -> MLClient:
        return MLClient(Nobody(), "sub", "rg", "ws", transport=self, enable_telemetry=False)

    def count(self, method: str) -> int:
        return sum(found == method for found, _ in self.requests)

    def set(self, name: str, status: str) -> None:
        self.jobs[name]["properties"]["status"] = status

    def send(self, request: Any, **_: Any) -> Any:
        path = request.url.split("?")[0]
        self.requests.append((request.method, path))
        if self.away:
            raise ServiceRequestError("nobody is there")
        status, body = self._answer(request.method, path.removeprefix("https://management.azure.com"), request)
        answer = requests.Response()
        answer.status_code, answer.url = status, request.url
        answer._content, answer._content_consumed = json.dumps(body).encode(), True
        answer.headers["content-type"] = "application/json"
        return RestRequestsTransportResponse(request=request, internal_response=answer)

    def _answer(self, method: str, path: str, request: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", SCOPE):
            about = {"mlFlowTrackingUri": f"azureml://{TRACKING}", "friendlyName": "ws"}
            return 200, {"id": path, "name": "ws", "location": "northeurope", "properties": about}
        assert path.startswith(f"{SCOPE}/jobs/"), path
        name, _, action = path.removeprefix(f"{SCOPE}/jobs/").partition("/")
        if method == "PUT" and self.refusal:
            return 400, {"error": self.refusal}
        if method == "PUT":
            body = json.loads(getattr(request, "data", None) or request.content)
            body |= {"id": path, "name": name}
            body["properties"]["status"] = "Starting"
            self.jobs[name] = body
            return 201, body
        if name not in self.jobs:
            return 404, {"error": {"code": "UserError", "message": f"Job {name} was not found."}}
        if action == "cancel":
            self.set(name, "Canceled")
            return 200, {}
        return 200, self.jobs[name]
