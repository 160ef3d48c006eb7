"""The API against its own description: what may be sent is answered as it says, and nothing is a fault."""

import subprocess
import sys
from pathlib import Path

import pytest
from served import Start, a_ring, live, post

# A batch answers each event for itself, so that a bad one in it is no error of the whole; and some rules
# have no word in JSON Schema: not from the future, exactly one of account_id and cluster_id, a host that is there.
CONFIG = """
[[operations]]
include-path = ["/v1/events", "/v1/labels"]
checks.negative_data_rejection.enabled = false
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/webhooks"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.timeout(900)  # some hundred requests, on a shared machine
def test_the_service_keeps_to_its_description(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with live(start()) as api:
        post(api, a_ring())
        api.post("/v1/sweep").raise_for_status()
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(config), "run", f"{api.base_url}/openapi.json"),
                *("--phases", "coverage,fuzzing", "--max-examples", "4", "--seed", "1"),
                *("--exclude-path", "/v1/decisions/stream"),  # it does not end
                *("--exclude-path", "/v1/parity"),  # a replay each time
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert api.get("/readyz").status_code == 200
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "generated" in done.stdout
