"""The OpenAPI document, and requests made up from it: nothing fails inside. Run: pytest tests/test_serve_schema.py"""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from tiny_desk import running, settings

from llmft.serve.app import ROUTERS

EXAMPLES = 8  # requests a path; a bounded run of what `schemathesis run` does at length
BOUNDED = effort(
    max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    # no model: what is tested here is everything before it
    with running(settings(tmp_path_factory.mktemp("desk"), backend_url="http://127.0.0.1:9/v1", live=False)) as service:
        yield service


def test_no_request_breaks_the_service(service) -> None:
    """Requests made up from the document, valid and not."""
    schema = schemathesis.openapi.from_dict(service.http.get("/openapi.json").json())
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/events"):  # a stream without end
            continue

        @BOUNDED
        @given(case=operation.as_strategy())
        def answered(case) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(base_url=service.url)
            is_known = answer.status_code == 503 and answer.json()["error"]["code"] == "model"
            assert answer.status_code < 500 or is_known, answer.text
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "code", "param"}

        answered()
    assert tried > 100


def test_every_path_is_documented(service) -> None:
    document = service.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), (method, path)
            assert operation["tags"], (method, path)
    assert len(document["paths"]) >= 25 and len(ROUTERS) == 8
