"""One command for a release, nothing of it published: `python deploy/release.py 1.2.3` writes out/release/1.2.3.

The version is set in pyproject.toml, and a section of CHANGELOG.md is begun from the commits since the last tag. Then
the wheel is built, twice, and both have to be the same bytes; a bill of materials for each service is written from its
hashed requirements; the overlays of deploy/k8s are rendered with that version's images (there is no chart: its README
says why); SHA256SUMS names all of it. Images are built where docker or podman answers. What is left to a person:
reading the changelog, committing, tagging, pushing.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
MARK = "## Unreleased\n"
OVERLAYS = ("local", "azure", "iotedge", "cloud")


def run(*words: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a program says. Raises SystemExit with its own words when it fails."""
    own = {**os.environ, **environment}  # noqa: TID251
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=own)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout


def versioned(text: str, version: str) -> str:
    """pyproject.toml with that version."""
    return re.sub(r'^version = ".*"$', f'version = "{version}"', text, count=1, flags=re.MULTILINE)


def changed(text: str, version: str, day: str, subjects: list[str]) -> str:
    """The changelog with a section for the version, led by what stood under Unreleased; one that is there stays."""
    if f"\n## {version} " in text:
        return text
    before, mark, after = text.partition(MARK)
    if not mark:
        raise SystemExit(f"CHANGELOG.md has no line {MARK.strip()!r}")
    own, heading, rest = after.partition("\n## ")
    lines = "".join(f"- {subject}\n" for subject in subjects)
    told = "\n".join(part for part in (own.strip("\n"), lines.rstrip("\n")) if part)
    return f"{before}{MARK}\n## {version} ({day})\n\n{told}\n" + heading + rest


def subjects() -> list[str]:
    """What the commits since the last tag say, the newest first, merges left away."""
    tags = run("git", "tag", "--list", "v*", "--sort=-v:refname", "--merged", "HEAD").split()
    return run("git", "log", "--no-merges", "--format=%s", *([f"{tags[0]}..HEAD"] if tags else [])).splitlines()


def wheel(target: Path) -> Path:
    """The same bytes whoever builds it: the clock is the last commit's."""
    epoch = run("git", "log", "-1", "--format=%ct").strip()
    built: list[Path] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in ("1", "2"):
            place = Path(folder) / number
            words = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place))
            run(*words, SOURCE_DATE_EPOCH=epoch)
            built.append(next(place.glob("*.whl")))
        if built[0].read_bytes() != built[1].read_bytes():
            raise SystemExit("two builds of the wheel differ")
        return Path(shutil.copy2(built[0], target))


def bills(target: Path, version: str) -> None:
    for requirements in sorted((ROOT / "requirements").glob("*.txt")):
        name = requirements.stem
        told = json.loads(run(sys.executable, "deploy/sbom.py", name, str(requirements)))
        told["metadata"]["component"]["version"] = version
        (target / f"{name}.cdx.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def overlays(target: Path, version: str) -> None:
    """Each rendered, with the version in the place of the tag `dev`."""
    code = (
        "import sys, yaml; from pathlib import Path; from services.cli.kustomize import render; "
        "yaml.safe_dump_all(render(Path(sys.argv[1])), sys.stdout, sort_keys=False)"
    )
    for name in OVERLAYS:
        text = run(sys.executable, "-c", code, str(ROOT / "deploy" / "k8s" / "overlays" / name))
        (target / f"k8s-{name}.yaml").write_text(re.sub(r"(\bhalfsure/[\w-]+):dev\b", rf"\g<1>:{version}", text))


def _answers(builder: str) -> bool:
    """A client alone builds nothing: its daemon, if it has one, has to be there too."""
    return shutil.which(builder) is not None and not subprocess.run((builder, "info"), capture_output=True).returncode


def images(version: str) -> str:
    builder = next((one for one in ("docker", "podman") if _answers(one)), None)
    if builder is None:
        return "no images: neither docker nor podman answers here"
    run("make", "images", f"TAG={version}", f"BUILD={builder} build")
    return f"images of all services, tag {version}, by {builder}"


def main(version: str) -> None:
    if not VERSION.fullmatch(version):
        raise SystemExit("say which version: make release VERSION=1.2.3")
    project, changelog = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
    project.write_text(versioned(project.read_text(), version))
    day = datetime.now(UTC).date().isoformat()
    changelog.write_text(changed(changelog.read_text(), version, day, subjects()))
    target = ROOT / "out" / "release" / version
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    wheel(target)
    bills(target, version)
    overlays(target, version)
    shutil.copy2(changelog, target)
    files = sorted(one for one in target.iterdir() if one.is_file())
    sums = "".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files)
    (target / "SHA256SUMS").write_text(sums)
    print(f"{target.relative_to(ROOT)}: {len(files)} files and SHA256SUMS; {images(version)}")
    print(f"To do by hand: read CHANGELOG.md; git commit -am 'Release {version}'; git tag v{version}; push")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
