from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentrl.run.commands.doctor import doctor

if TYPE_CHECKING:
    import pytest


def test_the_doctor_names_layers_tiers_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor(as_json=True)
    content = json.loads(capsys.readouterr().out)

    assert set(content) == {"versions", "extras", "layers", "tiers", "trials"}
    works = [said for said in content["trials"].values() if set(said.values()) == {"held"}]
    assert code == (0 if works else 1)
    assert all(said != "NOT HELD" for trial in content["trials"].values() for said in trial.values())


def test_the_doctor_speaks_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    doctor()

    assert "tier strict" in capsys.readouterr().out
