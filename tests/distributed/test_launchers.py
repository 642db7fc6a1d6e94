"""What each launcher's variables say, as a table; what they look like when there is only one process."""

import pytest
from launcher_cases import ALONE, SEVERAL, SLURM

from pamctl.distributed.launchers import launch_of
from pamctl.refusal import UsageRefusal


@pytest.mark.parametrize("name", SEVERAL)
def test_a_launcher_of_several_processes_is_understood(name: str) -> None:
    environ, expected = SEVERAL[name]
    assert launch_of(environ) == expected


@pytest.mark.parametrize("name", ALONE)
def test_one_process_is_no_launch(name: str) -> None:
    assert launch_of(ALONE[name]) is None


def test_a_variable_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(UsageRefusal, match="SLURM_PROCID is 'x'"):
        launch_of(SLURM | {"SLURM_PROCID": "x"})
