"""How many CPUs may be used, on made-up machines."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._config.cpus import quota_of, usable, usable_cpus


@pytest.mark.parametrize(
    ("affinity", "quotas", "expected"),
    [(8, [], 8), (8, [2.0], 2), (8, [2.5], 3), (8, [0.1], 1), (2, [4.0], 2), (8, [4.0, 1.5], 2)],
)
def test_usable(affinity: int, quotas: list[float], expected: int) -> None:
    """The usable CPUs are the affinity, limited by the smallest quota rounded up."""
    assert usable(affinity, quotas) == expected


@given(st.integers(1, 1024), st.lists(st.floats(0.001, 2000), max_size=4))
def test_usable_is_between_one_and_the_affinity(affinity: int, quotas: list[float]) -> None:
    """The usable CPUs are at least 1 and at most the affinity."""
    assert 1 <= usable(affinity, quotas) <= affinity


@pytest.mark.parametrize(
    ("limit", "period", "expected"),
    [("150000", "100000\n", 1.5), ("max", "100000", None), ("-1\n", "100000", None), ("", "", None), ("1", "0", None)],
)
def test_quota_of(limit: str, period: str, expected: float | None) -> None:
    """A quota is its limit divided by its period, and an absent limit is None."""
    assert quota_of(limit, period) == expected


def machine(root: Path, cgroup: str, **files: str) -> int:
    """Make a tree of /proc and /sys, and count the CPUs there; 1 if a limit of one CPU is seen."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return usable_cpus(root)


def test_version_2(tmp_path: Path) -> None:
    """A quota of cgroup version 2 is found."""
    assert machine(tmp_path, "0::/app\n", app__cpu_DOT_max="50000 100000\n") == 1


def test_version_2_in_a_group_above(tmp_path: Path) -> None:
    """A quota of cgroup version 2 on a group above is found."""
    files = {"pod__cpu_DOT_max": "100000 100000\n", "pod__box__cpu_DOT_max": "max 100000\n"}
    assert machine(tmp_path, "0::/pod/box\n", **files) == 1


def test_version_1_in_a_container(tmp_path: Path) -> None:
    """A quota of cgroup version 1 is found though the group's path is the host's."""
    root = tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    root.mkdir(parents=True)
    (root / "cpu.cfs_quota_us").write_text("100000\n")
    (root / "cpu.cfs_period_us").write_text("100000\n")
    assert machine(tmp_path, "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n") == 1


def test_path_that_leaves_the_namespace(tmp_path: Path) -> None:
    """A group's path that leaves the namespace does not leave the tree, and the container's quota is found."""
    assert machine(tmp_path, "0::/../x\n", cpu_DOT_max="100000 100000\n") == 1


def test_nothing_to_read(tmp_path: Path) -> None:
    """Without cgroups there is at least one usable CPU."""
    assert usable_cpus(tmp_path) >= 1
