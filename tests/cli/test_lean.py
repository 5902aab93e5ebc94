"""What a start of the console does not spend its time on."""

import subprocess
import sys

from tests.support.patience import PATIENCE_S

_IMPORT = """
import sys

spawned = []
sys.addaudithook(lambda event, of: spawned.append(of[0]) if event == "subprocess.Popen" else None)

from server_monitor.cli.lean import lean_imports

with lean_imports():
    import server_monitor.lifecycle.run

unused = [name for name in sys.modules if name.split(".")[0] in {"rich", "alembic"} or name.startswith("pydantic.v1.")]
print(spawned, [name for name in unused if sys.modules[name] is not None])
"""


def test_it_runs_no_other_program_and_loads_nothing_that_it_does_not_use() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True, timeout=PATIENCE_S
    )

    assert done.stdout == "[] []\n", done.stderr
