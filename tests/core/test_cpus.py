"""CPU quotas and memory limits of containers, as Docker and Kubernetes write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cpus import cpus_granted, memory_granted_mb


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_docker_with_version_2_shows_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    assert cpus_granted(lay(tmp_path, files)) == 2


@pytest.mark.parametrize(
    ("quota", "cpus"), [("150000", 2), ("50000", 1), ("1000", 1), ("1600000", 16)]
)
def test_a_part_of_a_cpu_counts_as_one(tmp_path: Path, quota: str, cpus: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert cpus_granted(lay(tmp_path, files)) == cpus


def test_the_tightest_group_around_a_process_decides(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/kubepods/pod7/app\n",
        "sys/fs/cgroup/kubepods/pod7/app/cpu.max": "max 100000\n",
        "sys/fs/cgroup/kubepods/pod7/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/kubepods/cpu.max": "6400000 100000\n",
    }
    assert cpus_granted(lay(tmp_path, files)) == 3


def test_docker_with_version_1_names_the_groups_of_the_host(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert cpus_granted(lay(tmp_path, files)) == 4


@pytest.mark.parametrize(
    "files",
    [
        {},  # no Linux
        {"proc/self/cgroup": "0::/user.slice\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {
            "proc/self/cgroup": "1:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        {"proc/self/cgroup": "0::/../..\n", "sys/fs/cpu.max": "100000 100000\n"},
    ],
)
def test_without_a_quota_nothing_is_said(tmp_path: Path, files: dict[str, str]) -> None:
    assert cpus_granted(lay(tmp_path, files)) is None


@pytest.mark.parametrize(
    ("files", "megabytes"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1073.741824),
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod7/app\n",
                "sys/fs/cgroup/kubepods/pod7/app/memory.max": "max\n",
                "sys/fs/cgroup/kubepods/pod7/memory.max": "2000000000\n",
            },
            2000.0,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "512000000\n",
            },
            512.0,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({}, None),
    ],
    ids=["version 2", "the pod's", "version 1", "version 1, none", "version 2, none", "no Linux"],
)
def test_the_memory_of_a_container_is_its_tightest_limit(
    tmp_path: Path, files: dict[str, str], megabytes: float | None
) -> None:
    assert memory_granted_mb(lay(tmp_path, files)) == megabytes
