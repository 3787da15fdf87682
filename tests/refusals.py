"""Bad requests, service by service, and the answer that each deserves."""

import base64
import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from worlds import png

PROJECT, OTHERS = "shapes", "foreign"
JSON = {"content-type": "application/json"}
DEEP = b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
SIXTY_DIGITS = "9" * 60


@dataclass(frozen=True)
class Bad:
    """A request and the refusal of it. `{sample}`, `{task}` and `{foreign}` in a path are filled in."""

    name: str
    method: str
    path: str
    status: int
    role: str = "admin"
    how: dict[str, Any] = field(default_factory=dict)
    project: str | None = PROJECT


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 black pixels in 900 bytes or so of header and a little data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 9).save(file, "JPEG")
    return file.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def raw(content: bytes, media_type: str = "image/png", **headers: str) -> dict[str, Any]:
    more = {f"x-halfsure-{name.replace('_', '-')}": value for name, value in headers.items()}
    return {"content": content, "headers": {"content-type": media_type, **more}}


def text(body: bytes) -> dict[str, Any]:
    return {"content": body, "headers": JSON}


BROKEN_IMAGES = {
    "truncated": (png(1)[:-30], "image/png"),
    "corrupt": (png(2)[:40] + b"\x00" * 20 + png(2)[60:], "image/png"),
    "header only": (b"\x89PNG\r\n\x1a\n", "image/png"),
    "a bomb": (bomb(), "image/png"),
}


def common(method: str, path: str, body: bytes, lists: list[str]) -> list[Bad]:
    """What every service refuses in the same way: `body` is a good one of a route that writes, less its brace."""
    post = (method, path)
    cut = b64(b"\x00\x00\x00\x00nope")
    rows = [
        Bad("broken JSON", *post, 400, how=text(b'{"a":')),
        Bad("nested JSON", *post, 400, how=text(DEEP)),
        Bad("nested a little", *post, 400, how=text(b'{"x":' + b"[" * 300 + b"]" * 300 + b"}")),
        Bad("not UTF-8", *post, 400, how=text(b'{"a":"\xff"}')),
        Bad("half a surrogate", *post, 400, how=text(b'{"a":"\\ud800"}')),
        Bad("NaN", *post, 422, how=text(body + b',"x":NaN}')),
        Bad("Infinity", *post, 422, how=text(body + b',"x":-Infinity}')),
        Bad(
            "NaN, type in capitals",
            *post,
            422,
            how={**text(b'{"x":NaN}'), "headers": {"content-type": "Application/JSON"}},
        ),
        Bad("unknown field", *post, 422, how=text(body + b',"colour":"red"}')),
        Bad("unknown field of odd name", *post, 422, how=text(body + b',"\\u0000<script>":1}')),
        Bad("not an object", *post, 422, how=text(b"[1]")),
        Bad("no token", *post, 401, role=""),
        Bad("no token and broken JSON", *post, 401, role="", how=text(b"{")),
        Bad("unknown token", *post, 401, role="nobody"),
        Bad("role too low", *post, 403, role="viewer", how=text(body + b"}")),
        Bad("another's project", *post, 404, role="only-shapes", how=text(body + b"}"), project=OTHERS),
        Bad("no such project", *post, 404, how=text(body + b"}"), project="nowhere"),
        Bad("a project called index", *post, 404, how=text(body + b"}"), project="index"),
        Bad("a path as project", *post, 422, how=text(body + b"}"), project="../../etc"),
        Bad("wrong method", "PATCH", path, 405),
        Bad("unknown route", "GET", "/v1/nothing", 404),
        Bad("path out of the API", "GET", "/v1/..%2f..%2fetc%2fpasswd", 404),
        Bad("bad limit of dead letters", "GET", "/v1/deadletters?limit=0", 422),
        Bad("bad cursor of dead letters", "GET", "/v1/deadletters?cursor=nope", 400),
        Bad("invented cursor of dead letters", "GET", f"/v1/deadletters?cursor={cut}", 400),
        Bad("no such dead letter", "POST", "/v1/deadletters/index/replay", 404),
        Bad("dead letters for a viewer", "GET", "/v1/deadletters", 403, role="reviewer"),
        Bad("an event from outside", "POST", "/events/project", 401, how=text(b"{}")),
        Bad("a dead letter from outside", "POST", "/events/dlq", 401, how=text(b"{}")),
    ]
    for one in lists:
        for what in ("0", "501", "-1", "x", SIXTY_DIGITS):
            rows.append(Bad(f"limit {what[:4]} of {one}", "GET", f"{one}?limit={what}", 422))
        for what in ("nope", "%20", cut, "%F0%9F%92%A9", "A" * 9000):
            rows.append(Bad(f"cursor {what[:8]} of {one}", "GET", f"{one}?cursor={what}", 400))
    return rows


def ingest() -> list[Bad]:
    post, batch = ("POST", "/v1/samples"), ("POST", "/v1/samples:batch")
    good = png(3)
    nowhere = {"sha256": "0" * 64, "media_type": "image/png"}
    rows = common(*post, b'{"data":"%s","media_type":"image/png"' % b64(good).encode(), ["/v1/samples"])
    rows += [Bad(name, *post, 422, how=raw(*image)) for name, image in BROKEN_IMAGES.items()]
    rows += [
        Bad("empty body", *post, 400, how=raw(b"")),
        Bad("wrong magic bytes", *post, 415, how=raw(jpeg(), "image/png")),
        Bad("text as an image", *post, 415, how=raw(b"hello", "image/png")),
        Bad("unsupported type", *post, 415, how=raw(b"%PDF-1.4", "application/pdf")),
        Bad("an unknown format without a type", *post, 415, how=raw(b"<svg/>", "application/octet-stream")),
        Bad("a row where images go", *post, 415, how={"json": {"row": {"a": 1}}}),
        Bad("naive time", *post, 422, how=raw(good, captured_at="2026-01-01T00:00:00")),
        Bad("time to come", *post, 422, how=raw(good, captured_at="2099-01-01T00:00:00Z")),
        Bad("other sha256", *post, 422, how=raw(good, sha256="0" * 64)),
        Bad("unknown header", *post, 422, how=raw(good, colour="red")),
        Bad("huge sequence", *post, 422, how=raw(good, stream="s", sequence="9" * 30)),
        Bad("nested attributes", *post, 422, how=raw(good, attributes='{"a":' + "[" * 300 + "]" * 300 + "}")),
        Bad("NaN in attributes", *post, 422, how=raw(good, attributes='{"a":NaN}')),
        Bad("not base64", *post, 422, how={"json": {"data": "%%%", "media_type": "image/png"}}),
        Bad("form without a file", *post, 400, how=raw(b"--x--\r\n", "multipart/form-data; boundary=x")),
        Bad("form without a boundary", *post, 400, how=raw(b"x", "multipart/form-data")),
        Bad("two kinds of content", *post, 422, how={"json": {"data": "AA==", "row": {}}}),
        Bad("too many lines", *batch, 422, how={"content": b"{}\n" * 1001}),
        Bad("list with a naive time", "GET", "/v1/samples?from=2026-01-01T00:00:00", 422),
        Bad("list of an unknown state", "GET", "/v1/samples?state=GONE", 422),
        Bad("withdrawal without a reason", "DELETE", "/v1/samples/{sample}", 422, how={"json": {}}),
        Bad("withdrawal without a body", "DELETE", "/v1/samples/{sample}", 422),
        Bad("another's sample", "GET", "/v1/samples/{foreign}", 404),
        Bad("another's content", "GET", "/v1/samples/{foreign}/content", 404),
        Bad("another's history", "GET", "/v1/samples/{foreign}/history", 404),
        Bad("withdrawal of another's", "DELETE", "/v1/samples/{foreign}", 404, how={"json": {"reason": "privacy"}}),
        Bad("path as a sample", "GET", "/v1/samples/..%2f..%2ftoken/content", 404),
        Bad("dots as a sample", "GET", "/v1/samples/%2e%2e/content", 404),
        Bad("NUL as a sample", "GET", "/v1/samples/%00", 404),
    ]
    for name, uri, status in (
        ("uri out of the store", f"blob:samples/{PROJECT}/../../token", 403),
        ("uri of another project", f"blob:samples/{OTHERS}/aa/bb", 403),
        ("uri elsewhere", "http://169.254.169.254/latest/meta-data", 403),
        ("uri of a file", "file:///etc/passwd", 403),
        ("uri with NUL", f"blob:samples/{PROJECT}/a\u0000b", 403),
        ("uri of nothing", f"blob:samples/{PROJECT}/aa/bb", 422),
        ("uri too long for a file", f"blob:samples/{PROJECT}/{'a' * 900}", 422),
    ):
        rows.append(Bad(name, *post, status, how={"json": {"content": {"uri": uri, **nowhere}}}))
    return rows


def infer() -> list[Bad]:
    predict, rescore = ("POST", "/v1/predict"), ("POST", "/v1/rescore")
    rows = common(*rescore, b'{"model_version":"none","sample_ids":["smp_x"]', [])
    for name, (content, kind) in BROKEN_IMAGES.items():
        rows.append(Bad(name, *predict, 422, how={"json": {"inputs": [{"data": b64(content), "media_type": kind}]}}))
    rows += [
        Bad(
            "wrong magic bytes",
            *predict,
            422,
            how={"json": {"inputs": [{"data": b64(jpeg()), "media_type": "image/png"}]}},
        ),
        Bad("unsupported type", *predict, 422, how={"json": {"inputs": [{"data": "AAAA", "media_type": "text/html"}]}}),
        Bad("no type", *predict, 422, how={"json": {"inputs": [{"data": "AAAA"}]}}),
        Bad("not base64", *predict, 422, how={"json": {"inputs": [{"data": "%", "media_type": "image/png"}]}}),
        Bad("a row where images go", *predict, 422, how={"json": {"inputs": [{"row": {"a": 1}}]}}),
        Bad("NaN in a row", *predict, 422, how=text(b'{"inputs":[{"row":{"a":NaN}}]}')),
        Bad("a number beyond any float", *predict, 400, how=text(b'{"inputs":[{"row":{"a":1e999}}]}')),
        Bad("nothing to predict", *predict, 422, how={"json": {"inputs": []}}),
        Bad("empty body", *predict, 422),
        Bad("too many inputs", *predict, 422, how={"json": {"sample_ids": ["smp_x"] * 257}}),
        Bad("unknown sample", *predict, 404, how={"json": {"sample_id": "smp_nope"}}),
        Bad("path as a sample", *predict, 404, how={"json": {"sample_id": "../../token"}}),
        Bad("another's sample", *predict, 404, how={"json": {"sample_id": "{foreign}"}}),
        Bad("unknown version", *predict, 404, how={"json": {"sample_id": "{sample}", "model_version": "mdl_nope"}}),
        Bad("load of nothing", "POST", "/v1/models/mdl_nope:load", 404),
        Bad("load of a path", "POST", "/v1/models/..%2f..%2ftoken:load", 404),
        Bad("unload of the active", "POST", "/v1/models/{model}:unload", 409),
        Bad("another's model", "POST", "/v1/models/{model}:load", 404, project=OTHERS),
        Bad("rescoring with nothing", *rescore, 404, how={"json": {"model_version": "mdl_x", "sample_ids": ["a"]}}),
        Bad(
            "naive time",
            *rescore,
            422,
            how={"json": {"model_version": "none", "filter": {"from": "2026-01-01T00:00:00"}}},
        ),
        Bad("no such rescoring", "GET", "/v1/rescore/open", 404),
    ]
    return rows


REVERSED = {"rule": "confidence", "low": 0.8, "high": 0.2}
NOWHERE = {"rule": "weekly", "zone": "../../etc/localtime"}
ENDLESS: dict[str, Any] = {"rule": "confidence"}
for _ in range(40):
    ENDLESS = {"rule": "not", "of": ENDLESS}


def select_uncertain() -> list[Bad]:
    rows = common("POST", "/v1/rounds", b'{"dry_run":true', ["/v1/candidates"])
    put, trial = ("PUT", "/v1/policies/default"), ("POST", "/v1/policies/default:test")
    match = {"if-match": '"1"'}
    rows += [
        Bad("no budget", "POST", "/v1/rounds", 422, how={"json": {"budget": 0}}),
        Bad("less than no budget", "POST", "/v1/rounds", 422, how={"json": {"budget": -1}}),
        Bad("empty body", "POST", "/v1/rounds", 422),
        Bad("unknown strategy", *put, 422, how={"json": {"strategy": "magic"}, "headers": match}),
        Bad("a band the wrong way round", *put, 422, how={"json": {"where": REVERSED}, "headers": match}),
        Bad("a rule that is none", *put, 422, how={"json": {"where": {"rule": "eval"}}, "headers": match}),
        Bad("rules without end", *put, 422, how={"json": {"where": ENDLESS}, "headers": match}),
        Bad("an unknown zone", *put, 422, how={"json": {"where": NOWHERE}, "headers": match}),
        Bad("a trial of a bad policy", *trial, 422, how={"json": {"policy": {"where": REVERSED}}}),
        Bad("a trial without a time", *trial, 422, how={"json": {"given": [{"confidence": 0.5}]}}),
        Bad("a trial of too much", *trial, 422, how={"json": {"samples": ["s"] * 10_001}}),
        Bad("share beyond one", *put, 422, how={"json": {"confident": 2}, "headers": match}),
        Bad(
            "number of 60 digits",
            *put,
            422,
            how={**text(b'{"seed":%s}' % SIXTY_DIGITS.encode()), "headers": {**JSON, **match}},
        ),
        Bad("no If-Match", *put, 428, how={"json": {}}),
        Bad("stale If-Match", *put, 412, how={"json": {}, "headers": {"if-match": '"7"'}}),
        Bad("odd policy name", "PUT", "/v1/policies/a:b", 422, how={"json": {}}),
        Bad("path as a policy", "GET", "/v1/policies/..%2fx", 404),
        Bad("no such policy", "GET", "/v1/policies/nope/versions", 404),
        Bad("test of no such policy", "POST", "/v1/policies/nope:test", 404, how={"json": {}}),
        Bad("no such round", "GET", "/v1/rounds/nope", 404),
        Bad("another's round", "GET", "/v1/rounds/{round}", 404, project=OTHERS),
        Bad("no such decision", "GET", "/v1/decisions/nope", 404),
        Bad("another's decision", "GET", "/v1/decisions/{foreign}", 404),
        Bad("odd order", "GET", "/v1/candidates?sort=colour", 422),
    ]
    return rows


def label_queue() -> list[Bad]:
    rows = common("POST", "/v1/tasks:claim", b'{"n":1', ["/v1/tasks"])
    answers = ("POST", "/v1/tasks/{task}/annotations")
    schema = ("PUT", f"/v1/schemas/{PROJECT}")
    two = {"labels": ["dark", "bright"]}
    rows += [
        Bad("unknown label", *answers, 422, how={"json": {"epoch": 1, "value": "purple"}}),
        Bad("a list as label", *answers, 422, how={"json": {"epoch": 1, "value": ["dark"]}}),
        Bad("a long label", *answers, 422, how={"json": {"epoch": 1, "value": "x" * 100_000}}),
        Bad("NaN as label", *answers, 422, how=text(b'{"epoch":1,"value":NaN}')),
        Bad("no label", *answers, 422, how={"json": {"epoch": 1}}),
        Bad("an epoch to come", *answers, 409, how={"json": {"epoch": 99, "value": "dark"}}),
        Bad("epoch of 60 digits", *answers, 422, how=text(b'{"value":"dark","epoch":%s}' % SIXTY_DIGITS.encode())),
        Bad("endless seconds", *answers, 422, how={"json": {"epoch": 1, "value": "dark", "seconds": 1e300}}),
        Bad("other schema", *answers, 409, how={"json": {"epoch": 1, "value": "dark", "schema_version": 9}}),
        Bad(
            "speaking for others",
            *answers,
            403,
            role="annotator",
            how={"json": {"epoch": 1, "value": "dark", "annotator": "me"}},
        ),
        Bad("another's lease", "POST", "/v1/tasks/{task}:heartbeat", 409, role="annotator", how={"json": {"epoch": 1}}),
        Bad("release by others", "POST", "/v1/tasks/{task}:release", 409, role="annotator", how={"json": {"epoch": 1}}),
        Bad("skip without a reason", "POST", "/v1/tasks/{task}:skip", 422, how={"json": {"epoch": 1}}),
        Bad("another project's task", "GET", "/v1/tasks/{task}", 404, project=OTHERS),
        Bad("answer from another project", *answers, 404, how={"json": {"epoch": 1, "value": "dark"}}, project=OTHERS),
        Bad("no such task", "GET", "/v1/tasks/tsk_nope", 404),
        Bad("path as a task", "GET", "/v1/tasks/..%2f..%2ftoken", 404),
        Bad("unknown state", "GET", "/v1/tasks?state=lost", 400),
        Bad("no tasks at all", "POST", "/v1/tasks:claim", 422, how={"json": {"n": 0}}),
        Bad("too many tasks", "POST", "/v1/tasks:claim", 422, how={"json": {"n": 25}}),
        Bad("claim of an unknown label", "POST", "/v1/tasks:claim", 422, how={"json": {"labels": ["purple"]}}),
        Bad("empty body", "POST", "/v1/tasks:claim", 422),
        Bad("nothing in dispute", "POST", "/v1/tasks/{task}:resolve", 409, how={"json": {"value": "dark"}}),
        Bad(
            "resolving for an annotator",
            "POST",
            "/v1/tasks/{task}:resolve",
            403,
            role="annotator",
            how={"json": {"value": "dark"}},
        ),
        Bad("no such annotation", "DELETE", "/v1/annotations/nope", 404),
        Bad("nothing to retract", "POST", "/v1/samples/smp_nope/label:retract", 404),
        Bad("no If-Match", *schema, 428, how={"json": two}),
        Bad("stale If-Match", *schema, 412, how={"json": two, "headers": {"if-match": '"9"'}}),
        Bad("one label", *schema, 422, how={"json": {"labels": ["dark"]}, "headers": {"if-match": '"1"'}}),
        Bad("twice the same label", *schema, 422, how={"json": {"labels": ["a", "a"]}, "headers": {"if-match": '"1"'}}),
        Bad("another's schema", "GET", f"/v1/schemas/{OTHERS}", 404, role="only-shapes"),
        Bad("unknown format", "GET", "/v1/export?format=xml", 406),
        Bad("unknown split", "POST", "/v1/import?split=holdout", 422),
    ]
    return rows


def retrain_trigger() -> list[Bad]:
    rows = common("POST", "/v1/runs", b'{"reason":"manual"', ["/v1/runs", "/v1/models", "/v1/projects"])
    projects = ("POST", "/v1/projects")
    rule = ("PUT", f"/v1/triggers/{PROJECT}")
    match = {"if-match": "*"}
    rows += [
        Bad("empty body", "POST", "/v1/runs", 422),
        Bad("unknown reason", "POST", "/v1/runs", 422, how={"json": {"reason": "whim"}}),
        Bad("too few labels", "POST", "/v1/runs", 409, how={"json": {}}),
        Bad("project without a name", *projects, 422, how={"json": {"task": "image-classification"}}),
        Bad("path as project", *projects, 422, how={"json": {"name": "../x"}}),
        Bad("project for a viewer", *projects, 403, role="viewer", how={"json": {}}),
        Bad("rule of no labels", *rule, 422, how={"json": {"n": 0}, "headers": match}),
        Bad("rule of negative pause", *rule, 422, how={"json": {"cooldown_seconds": -1}, "headers": match}),
        Bad("rule of an unknown metric", *rule, 422, how={"json": {"metric": "mood"}, "headers": match}),
        Bad("rule without If-Match", *rule, 428, how={"json": {"n": 5}}),
        Bad("stale rule", *rule, 412, how={"json": {"n": 5}, "headers": {"if-match": '"77"'}}),
        Bad("no such rule", "GET", "/v1/triggers/nope", 404),
        Bad("rule of index", "GET", "/v1/triggers/index", 404),
        Bad("another's rule", "GET", f"/v1/triggers/{OTHERS}", 404, role="only-shapes"),
        Bad("another's document", "GET", f"/v1/projects/{OTHERS}", 404, role="only-shapes"),
        Bad("deletion by an operator", "DELETE", f"/v1/projects/{PROJECT}", 403, role="operator"),
        Bad("no such run", "GET", "/v1/runs/run_nope", 404),
        Bad("the index as a run", "GET", f"/v1/runs/index:{PROJECT}", 404),
        Bad("end of no run", "POST", "/v1/runs/run_nope:cancel", 404),
        Bad("no such snapshot", "GET", "/v1/snapshots/nope", 404),
        Bad("difference to nothing", "GET", "/v1/snapshots/nope/diff", 422),
        Bad("no such model", "GET", "/v1/models/nope", 404),
        Bad("another's model", "GET", "/v1/models/{model}", 404, project=OTHERS),
        Bad("comparison of nothing", "GET", "/v1/models/compare?a=x&b=y", 404),
        Bad("no share", "POST", "/v1/models/{model}:activate", 422, how={"json": {"share": 0, "reason": "x"}}),
        Bad(
            "force by an operator",
            "POST",
            "/v1/models/{model}:activate",
            403,
            role="operator",
            how={"json": {"force": True, "reason": "x"}},
        ),
        Bad("no way back", "POST", "/v1/models:rollback", 409, how={"json": {}}),
        Bad("a model that is none", "POST", "/v1/models", 422, how={"json": {"artefact": "AAAA", "manifest": {}}}),
    ]
    return rows


TABLE = {
    "ingest": ingest(),
    "infer": infer(),
    "select-uncertain": select_uncertain(),
    "label-queue": label_queue(),
    "retrain-trigger": retrain_trigger(),
}
