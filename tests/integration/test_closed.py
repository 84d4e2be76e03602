"""An address that others reach, with real processes: closed until there is a token, and by it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.house import ROOT, House

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house whose API listens at every address of this machine; nothing is started."""
    house = House(tmp_path, "http://127.0.0.1:9", HAL0_TOKEN_FILE=str(tmp_path / "token"))
    house.env["HAL0_BIND"] = f"0.0.0.0:{house.port}"
    return house


def hal0(house: House, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hal0", *args],
        cwd=ROOT,
        env={**house.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_up_serves_the_network_to_who_has_a_token_and_to_nobody_else(
    house: House, tmp_path: Path
) -> None:
    refused = hal0(house, "api")
    assert refused.returncode == 2, refused.stderr
    assert "run `hal0 token create NAME --role writer` first" in refused.stderr
    made = hal0(house, "token", "create", "alice", "--role", "writer")
    assert made.returncode == 0, made.stderr
    (tmp_path / "token").write_text(made.stdout)
    with house:
        up = house.start("-m", "hal0", "up")
        house.wait_for(lambda: "worker runs" in house.log.read_text() or up.poll() is not None)
        assert up.poll() is None, house.log.read_text()
        assert house.client.get("/readyz").status_code == 200
        asked = house.client.get("/api/v1/slots", headers={"Host": "hal0.lan"})
        assert (asked.status_code, asked.headers["www-authenticate"]) == (401, "Bearer")
        house.client.headers["Authorization"] = f"Bearer {made.stdout.strip()}"
        house.client.headers["Host"] = "hal0.lan"
        assert hal0(house, "slot", "create", "chat").returncode == 0
        audit = json.loads(hal0(house, "audit", "--json").stdout)["items"]
        assert [(row["cause"], row["actor"]) for row in audit] == [("created", "alice")]
        through_api = hal0(
            *(house, "token", "create", "ci", "--role", "reader", "--json"),
            HAL0_URL=f"http://127.0.0.1:{house.port}",
        )
        assert json.loads(through_api.stdout)["created_by"] == "alice"
        assert hal0(house, "token", "revoke", "alice").returncode == 0
        house.wait_for(lambda: house.client.get("/api/v1/slots").status_code == 401)
        told = hal0(house, "slot", "list")
        assert (told.returncode, "[auth.unauthorized]" in told.stderr) == (4, True)
        used = house.sql("SELECT last_used_at, revoked_by FROM tokens WHERE name = 'alice'")
        assert used[0][0] is not None
        assert used[0][1] == "local"
        assert house.stop(up) == 0


def test_one_address_cannot_count_as_many_by_what_it_says_of_itself(
    house: House, tmp_path: Path
) -> None:
    """A client on this machine that forwards for nobody: X-Forwarded-For is not believed."""
    hal0(house, "token", "create", "alice", "--role", "writer")
    with house:
        house.start_api()
        bad = {"Authorization": "Bearer hal0_" + "x" * 43}
        statuses = []
        for number in range(12):
            said = {**bad, "X-Forwarded-For": f"192.0.2.{number}", "Forwarded": "for=192.0.2.1"}
            statuses.append(house.client.get("/api/v1/slots", headers=said))
        assert [answer.status_code for answer in statuses[-2:]] == [429, 429]
        assert int(statuses[-1].headers["retry-after"]) >= 1
