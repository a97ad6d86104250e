"""Build torch-scatter and torch-sparse for this Python and torch, once, and install them.

Both are published as source only. The wheels are kept outside the checkout, in a folder named after torch, Python and
platform, so that other clones find them: in `$EDDA_WHEELS`, or else in `edda-recsys/wheels` in the user's cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

PACKAGES = ("torch-scatter==2.1.2", "torch-sparse==0.6.18")
FILES_TO_COMPILE = 30
"""Approximate number for both packages on a CPU, used in progress lines only."""
SECONDS_BETWEEN_LINES = 20.0
COMPILED = re.compile(r"-o \S+\.o\b")


def main() -> None:
    """Build the wheels unless they exist, then install them."""
    folder = wheel_folder()
    if not has_wheels(folder):
        explain_missing_tools()
        build(folder)
    run_installer([*map(str, sorted(folder.glob("*.whl")))])
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import torch_sparse"], check=True)
    print(f"torch-sparse is ready (wheels in {folder})")


def wheel_folder() -> Path:
    """The folder of the wheels for this torch, Python and platform."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("EDDA_WHEELS") or cache / "edda-recsys" / "wheels")
    release = torch.__version__.split("+")[0]
    cuda = f"-cu{torch.version.cuda.replace('.', '')}" if builds_for_cuda() and torch.version.cuda else ""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return root / f"torch-{release}{cuda}-{python}-{platform}"


def builds_for_cuda() -> bool:
    """Whether to build CUDA kernels: torch has CUDA, and nvcc is on the PATH."""
    return bool(torch.version.cuda) and shutil.which("nvcc") is not None


def has_wheels(folder: Path) -> bool:
    """Whether both wheels exist."""
    return all(list(folder.glob(f"{name.split('==')[0].replace('-', '_')}-*.whl")) for name in PACKAGES)


def explain_missing_tools() -> None:
    """Exit with a message on what to install if a compiler or Python's headers are missing."""
    compiler = os.environ.get("CXX", "c++")
    missing = [] if shutil.which(compiler) else [f"a C++ compiler ({compiler} is not on the PATH)"]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing += [] if header.exists() else [f"Python's headers ({header} does not exist)"]
    if missing:
        sys.exit(
            f"make sparse compiles torch-sparse and needs {' and '.join(missing)}.\n"
            "Debian, Ubuntu: apt install g++ python3-dev. Fedora: dnf install gcc-c++ python3-devel. macOS: "
            "xcode-select --install.\n"
            "Nothing else needs it: without torch-sparse, training uses torch's own sparse products."
        )


def build(folder: Path) -> None:
    """Compile in a temporary folder, and rename it to its final name once both wheels exist."""
    jobs = os.environ.get("MAX_JOBS") or str(len(os.sched_getaffinity(0)))
    print(f"compiling {' and '.join(PACKAGES)} with {jobs} jobs: 10 to 20 minutes on two cores, once for {folder.name}")
    run_installer(["setuptools", "wheel", "ninja"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        wheels = Path(temporary, "wheels")
        command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-build-isolation", "--no-deps"]
        command += ["--no-cache-dir", "--wheel-dir", str(wheels), *PACKAGES]
        environment = {**os.environ, "MAX_JOBS": jobs, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {} if builds_for_cuda() else {"FORCE_ONLY_CPU": "1"}
        log = folder.parent / f"{folder.name}.log"
        watch(command, environment, log)
        shutil.rmtree(folder, ignore_errors=True)
        wheels.rename(folder)


def watch(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Run the build with its output in a log file, and print a line of progress every 20 seconds."""
    started = time.monotonic()
    with (
        log.open("w") as record,
        subprocess.Popen(command, env=environment, stdout=record, stderr=subprocess.STDOUT) as build,
    ):
        while build.poll() is None:
            try:
                build.wait(SECONDS_BETWEEN_LINES)
            except subprocess.TimeoutExpired:
                files = len(COMPILED.findall(log.read_text(errors="replace")))
                print(f"  {time.monotonic() - started:4.0f} s, file {files} of about {FILES_TO_COMPILE}", flush=True)
    if build.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        sys.exit(f"the build failed with {build.returncode}; the last lines of {log}:\n{tail}")
    print(f"  built in {time.monotonic() - started:.0f} s")


def run_installer(packages: Sequence[str]) -> None:
    """Install packages into this environment with uv if it is installed, or else with pip."""
    uv = Path(sys.executable).with_name("uv")
    constraints = Path(__file__).parent.parent / "constraints.txt"
    wheels = packages[0].endswith(".whl")
    extra = ["--no-deps"] if wheels else ["-c", str(constraints)]
    environment = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), **os.environ}
    pip = [str(uv), "pip", "install", "--quiet", "--python", sys.executable] if uv.exists() else [
        sys.executable, "-m", "pip", "install", "--quiet",
    ]  # fmt: skip
    subprocess.run([*pip, *extra, *packages], check=True, env=environment)


if __name__ == "__main__":
    main()
