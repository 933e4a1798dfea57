from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentrl.run.commands.doctor import doctor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from agentrl.sandbox.result import Tier


def test_the_doctor_names_layers_tiers_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor(as_json=True)
    content = json.loads(capsys.readouterr().out)

    assert set(content) == {"versions", "extras", "layers", "tiers", "trials"}
    auto = {name: said for name, said in content["trials"].items() if name != "bwrap"}
    works = [said for said in auto.values() if set(said.values()) == {"held"}]
    assert ("bwrap" in content["trials"]) == (content["tiers"]["bwrap"] == [])
    assert code == (0 if works else 1)
    assert all(said != "NOT HELD" for trial in content["trials"].values() for said in trial.values())


def test_a_tier_that_does_not_start_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(tier: Tier) -> Mapping[str, str]:
        return {"start": f"The tier {tier.value} did not start: no."}

    monkeypatch.setattr("agentrl.sandbox.trial.trial", refused)

    def nothing(*_: object) -> list[str]:
        return []

    monkeypatch.setattr("agentrl.sandbox.probe.missing", nothing)
    assert doctor() == 1
    shown = capsys.readouterr().out
    assert "tier landlock        The tier landlock did not start: no." in shown
    assert "works" not in [line.split()[-1] for line in shown.splitlines() if line.startswith("tier")]

    doctor(as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert content["trials"] == {}
    assert content["tiers"]["strict"] == ["The tier strict did not start: no."]


def test_the_doctor_speaks_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    doctor()

    assert "tier strict" in capsys.readouterr().out
