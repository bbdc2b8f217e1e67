"""Given the files for clusters, then Ray's own schema takes the one, a description of KubeRay's takes the other, and
both name the versions that the project is tested with.

``RayCluster`` below says in our words what the manifest uses of KubeRay's custom resource, no more: a field that it
lacks is refused here until somebody has looked it up.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from eventmesh import __version__

RAY_UP, KUBERAY, DOCKERFILE = (f"configs/clusters/{name}" for name in ("ray-up.yaml", "kuberay.yaml", "Dockerfile"))
CLOUDS = ("azure", "boto3", "botocore", "google.cloud", "googleapiclient", "kubernetes")
#: Ray or its image, this project's image, and Python, wherever they are named with a version.
NAMED = re.compile(
    r"(?P<what>ray|ray\[default\]|eventmesh|python)(?:==|:|(?=3\.))(?P<version>\d[\d.]*\d)(?:-py(?P<py>\d+))?"
)


# --- ray up -----------------------------------------------------------------------------------------


def prepared(document: dict[str, Any]) -> dict[str, Any]:
    """The file as ``ray up`` completes it, once Ray has checked it; raises what a user would be told."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found: dict[str, Any] = prepare_config(copy.deepcopy(document))
    validate_config(found)
    return found


@pytest.fixture
def ray_up(files: dict[str, str]) -> dict[str, Any]:
    return dict(yaml.safe_load(files[RAY_UP]))


def test_ray_up_takes_its_file_and_all_of_its_machines(ray_up: dict[str, Any]) -> None:
    complete, provider = prepared(ray_up), ray_up["provider"]
    (kind,) = complete["available_node_types"].values()
    workers = len(provider["worker_ips"])
    assert (complete["max_workers"], kind["min_workers"], kind["max_workers"]) == (workers,) * 3
    assert provider["head_ip"] not in provider["worker_ips"]


def test_that_starts_no_ray_and_needs_no_cloud(root: Path) -> None:
    check = (
        f"import sys, ray, yaml\nfrom ray.autoscaler._private.util import prepare_config, validate_config\n"
        f"validate_config(prepare_config(yaml.safe_load(open({RAY_UP!r}))))\n"
        f"assert not ray.is_initialized()\nprint([name for name in {CLOUDS} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.update(setup_comands=[]), "'setup_comands' was unexpected"),
        (lambda document: document["provider"].pop("head_ip"), "supply a `head_ip`"),
        (lambda document: document.update(auth=[]), "is not of type 'object'"),
    ],
)
def test_a_mistake_in_it_is_found(ray_up: dict[str, Any], change: Any, said: str) -> None:
    change(ray_up)
    with pytest.raises(Exception, match=re.escape(said)):
        prepared(ray_up)


def test_every_ray_asks_for_the_token_that_is_copied(ray_up: dict[str, Any], root: Path) -> None:
    starts = [each for key in ("head", "worker") for each in ray_up[f"{key}_start_ray_commands"] if "ray start" in each]
    assert len(starts) == 2
    assert all(each.startswith("RAY_AUTH_MODE=token ") for each in starts)
    assert "~/.ray/auth_token" in ray_up["file_mounts"]
    ignored = {line.strip("/") for line in (root / ".gitignore").read_text().splitlines()}
    assert {".venv", "runs"} <= ignored & set(ray_up["rsync_exclude"])


def test_its_machines_are_set_up_by_a_target_of_the_makefile(ray_up: dict[str, Any], root: Path) -> None:
    (target,) = re.findall(r"make -C ~/eventmesh (\S+)", ray_up["setup_commands"][0])
    planned = subprocess.run(
        ["make", "-n", "--always-make", target], cwd=root, capture_output=True, text=True, timeout=50
    )
    assert planned.returncode == 0, planned.stderr
    assert "requirements.txt" in planned.stdout


# --- KubeRay ----------------------------------------------------------------------------------------

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]


class Part(BaseModel):
    """Of a manifest: Kubernetes' own spelling, no conversion, nothing unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Metadata(Part):
    name: Name


class Variable(Part):
    name: str
    value: str


class Mount(Part):
    name: Name
    mount_path: Annotated[str, StringConstraints(pattern=r"^/")]
    read_only: bool = False


class Resources(Part):
    requests: dict[Literal["cpu", "memory", "storage"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity] = Field(default_factory=dict)


class Container(Part):
    name: Name
    image: str
    env: list[Variable] = Field(default_factory=list)
    resources: Resources
    volume_mounts: list[Mount] = Field(default_factory=list)


class Claimed(Part):
    claim_name: Name


class Secret(Part):
    secret_name: Name


class Volume(Part):
    name: Name
    persistent_volume_claim: Claimed | None = None
    secret: Secret | None = None


class SecurityContext(Part):
    fs_group: int


class Pod(Part):
    hostname: Name | None = None
    security_context: SecurityContext | None = None
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume] = Field(default_factory=list)

    @model_validator(mode="after")
    def _every_mount_has_its_volume(self) -> Pod:
        volumes = [volume.name for volume in self.volumes]
        mounts = [mount.name for container in self.containers for mount in container.volume_mounts]
        if sorted(volumes) != sorted(mounts):
            raise ValueError(f"volumes {volumes} are mounted as {mounts}")
        return self


class Template(Part):
    spec: Pod


class HeadGroup(Part):
    ray_start_params: dict[str, str]
    template: Template


class WorkerGroup(HeadGroup):
    group_name: Name
    replicas: int
    min_replicas: int
    max_replicas: int

    @model_validator(mode="after")
    def _replicas_are_within_their_bounds(self) -> WorkerGroup:
        if not 0 <= self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("replicas: expected minReplicas <= replicas <= maxReplicas")
        return self


class AuthOptions(Part):
    mode: Literal["disabled", "token"]


class Spec(Part):
    ray_version: str
    auth_options: AuthOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = Field(min_length=1)


class RayCluster(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: Spec


class ClaimSpec(Part):
    access_modes: list[Literal["ReadWriteOnce"]]
    resources: Resources


class Claim(Part):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


@pytest.fixture
def manifest(files: dict[str, str]) -> list[Any]:
    return list(yaml.safe_load_all(files[KUBERAY]))


def parsed(manifest: list[Any]) -> tuple[Claim, RayCluster]:
    claim, cluster = manifest
    return Claim.model_validate(claim), RayCluster.model_validate(cluster)


def test_the_manifest_is_a_ray_cluster_whose_log_has_a_home(manifest: list[Any]) -> None:
    claim, cluster = parsed(manifest)
    head = cluster.spec.head_group_spec.template.spec
    assert cluster.spec.auth_options.mode == "token"
    assert [volume.persistent_volume_claim for volume in head.volumes if volume.persistent_volume_claim] == [
        Claimed(claimName=claim.metadata.name)
    ]
    assert [volume.secret for volume in head.volumes if volume.secret] == [Secret(secretName=cluster.metadata.name)]
    assert head.hostname, "a data directory names its node"
    assert all(not group.template.spec.volumes for group in cluster.spec.worker_group_specs), "one node has the log"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.pop("headGroupSpec"), "headGroupSpec"),
        (lambda spec: spec.update(workerGroupSpec=[]), "workerGroupSpec"),
        (lambda spec: spec["workerGroupSpecs"][0].pop("groupName"), "groupName"),
        (lambda spec: spec["workerGroupSpecs"][0].update(replicas="2"), "replicas"),
        (lambda spec: spec["workerGroupSpecs"][0].update(replicas=3), "maxReplicas"),
        (lambda spec: spec["headGroupSpec"].update(rayStartParams={"num-cpus": 2}), "rayStartParams"),
        (lambda spec: spec["headGroupSpec"]["template"]["spec"].update(volumes=[]), "are mounted as"),
        (lambda spec: spec["headGroupSpec"]["template"]["spec"].update(containers=[]), "containers"),
        (lambda spec: spec["authOptions"].update(mode="none"), "authOptions"),
    ],
)
def test_a_mistake_in_the_manifest_is_found(manifest: list[Any], change: Any, said: str) -> None:
    change(manifest[1]["spec"])
    with pytest.raises(ValidationError, match=said):
        parsed(manifest)


# --- versions ---------------------------------------------------------------------------------------


def misnamed(text: str, versions: dict[str, str]) -> list[str]:
    """Where ``text`` names another version than that of ``versions``, which are ``ray``, ``eventmesh``, ``python``."""
    wrong = []
    for found in NAMED.finditer(text):
        same = found["version"] == versions[found["what"].removesuffix("[default]")]
        python = found["py"] is None or found["py"] == versions["python"].replace(".", "")
        if not (same and python):
            wrong.append(found.group())
    return wrong


@pytest.fixture
def versions(files: dict[str, str]) -> dict[str, str]:
    (ray,) = re.findall(r"^ray==(\S+)$", files["requirements.txt"], re.MULTILINE)
    python = tomllib.loads(files["pyproject.toml"])["tool"]["mypy"]["python_version"]
    return {"ray": ray, "eventmesh": __version__, "python": python}


@pytest.mark.parametrize("path", [RAY_UP, KUBERAY, DOCKERFILE])
def test_versions_are_those_of_the_project(path: str, files: dict[str, str], versions: dict[str, str]) -> None:
    assert len(NAMED.findall(files[path])) >= 1
    assert misnamed(files[path], versions) == []


def test_the_manifest_says_which_ray_its_image_has(manifest: list[Any], versions: dict[str, str]) -> None:
    _, cluster = parsed(manifest)
    assert cluster.spec.ray_version == versions["ray"]
    groups = [cluster.spec.head_group_spec, *cluster.spec.worker_group_specs]
    images = {container.image for group in groups for container in group.template.spec.containers}
    assert images == {f"eventmesh:{versions['eventmesh']}"}


@pytest.mark.parametrize("text", ["'ray[default]==2.59.0'", "FROM rayproject/ray:2.60.0-py312", "PYTHON=python3.12",
                                  "FROM rayproject/ray:2.59.0-py311", "image: eventmesh:0.0.9"])  # fmt: skip
def test_another_version_is_found(text: str) -> None:
    assert misnamed(text, {"ray": "2.60.0", "eventmesh": "0.1.0", "python": "3.11"})
