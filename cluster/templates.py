"""`infosam cluster init`: the shipped files, with the answers to a few questions in place of their examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from infosam.errors import UserError

NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
_ADDRESS = r"[A-Za-z0-9][A-Za-z0-9.-]*"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One answer that takes the place of an example everywhere in a file."""

    key: str  # name of the answer, for --set
    text: str
    example: str  # as it stands in the shipped file
    pattern: str  # that a whole answer must match
    hint: str  # what an answer looks like
    has_default: bool = False  # whether the example is a usable answer


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of cluster for Ray's launcher."""

    file: str
    questions: Sequence[Question]
    needs_key: bool = False  # the launcher makes no ssh key of its own


_TRACKING = Question(
    key="tracking",
    text="MLflow server, as the head reaches it",
    example="http://10.0.0.1:5000",
    pattern=r"https?://[^\s/]+",
    hint="http://HOST:5000",
)
_WORKERS = Question(
    key="workers",
    text="Most GPU workers at a time",
    example="max_workers: 8",
    pattern=r"[1-9]\d{0,3}",
    hint="a number from 1 to 9999",
    has_default=True,
)

TARGETS: Mapping[str, Target] = {
    "onprem": Target(
        file="onprem.yaml",
        needs_key=True,
        questions=(
            _TRACKING,
            Question(key="head", text="Address of the head", example="head_ip: 10.0.0.1", pattern=_ADDRESS, hint="IP"),
            Question(
                key="nodes",
                text="Addresses of the workers, by commas",
                example="10.0.0.2, 10.0.0.3",
                pattern=rf"{_ADDRESS}(, ?{_ADDRESS})*",
                hint="IP,IP,...",
            ),
            Question(
                key="user",
                text="User on all machines",
                example="ssh_user: infosam",
                pattern=r"[a-z_][a-z0-9_-]*",
                hint="a user name",
                has_default=True,
            ),
            Question(
                key="environment",
                text="Environment with infosam, the same path on all machines",
                example="/opt/infosam",
                pattern=r"/[\w./-]+",
                hint="a path that begins with /",
                has_default=True,
            ),
            Question(
                key="storage",
                text="Folder that all machines share",
                example="/mnt/infosam",
                pattern=r"/[\w./-]+",
                hint="a path that begins with /",
                has_default=True,
            ),
        ),
    ),
    "aws": Target(
        file="aws.yaml",
        questions=(
            Question(
                key="image",
                text="Image, with its tag",
                example="123456789012.dkr.ecr.us-east-1.amazonaws.com/infosam:0.1.0",
                pattern=r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/[\w./-]+:[\w.-]+",
                hint="the output Image of aws_foundation.yaml and a tag, ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG",
            ),
            Question(
                key="zone", text="Zone", example="us-east-1a", pattern=r"[a-z]{2}(-[a-z]+)+-\d[a-z]", hint="us-east-1a"
            ),
            Question(
                key="ami",
                text="Machine image with Docker and NVIDIA's driver",
                example="ami-00000000000000000",
                pattern=r"ami-[0-9a-f]{8,17}",
                hint="ami-... (docs/cluster.md has the command that finds it)",
            ),
            Question(
                key="subnet",
                text="Subnet",
                example="subnet-00000000000000000",
                pattern=r"subnet-[0-9a-f]{8,17}",
                hint="the output SubnetOfNodes",
            ),
            Question(
                key="group",
                text="Security group",
                example="sg-00000000000000000",
                pattern=r"sg-[0-9a-f]{8,17}",
                hint="the output SecurityGroup",
            ),
            Question(
                key="folder",
                text="File system",
                example="fs-00000000000000000",
                pattern=r"fs-[0-9a-f]{8,17}",
                hint="the output Folder",
            ),
            Question(
                key="instance",
                text="Kind of GPU worker",
                example="g6.2xlarge",
                pattern=r"[a-z0-9-]+\.[a-z0-9]+",
                hint="such as g6.2xlarge; then set its resources in the file",
                has_default=True,
            ),
            _WORKERS,
            _TRACKING,
        ),
    ),
    "gcp": Target(
        file="gcp.yaml",
        needs_key=True,
        questions=(
            Question(
                key="project",
                text="Project",
                example="my-project",
                pattern=r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
                hint="its id",
            ),
            Question(
                key="zone", text="Zone", example="us-central1-a", pattern=r"[a-z]+-[a-z]+\d-[a-z]", hint="us-central1-a"
            ),
            Question(
                key="folder",
                text="Shared folder over NFS",
                example="10.0.0.2:/infosam",
                pattern=rf"{_ADDRESS}:/[\w./-]+",
                hint="ADDRESS:/SHARE of Filestore",
            ),
            _WORKERS,
            _TRACKING,
        ),
    ),
}
"""What can be asked for; Kubernetes and Slurm have files to copy instead."""


def refusal(question: Question, answer: str) -> str | None:
    """Why an answer cannot be taken, or None."""
    if re.fullmatch(question.pattern, answer):
        return None
    return f"{question.key}: {answer!r} does not look like {question.hint}"


def filled(target: Target, name: str, answers: Mapping[str, str], *, public_key: str | None = None) -> str:
    """The shipped file of a target with the cluster's name and the answers by key.

    Raises UserError for a name or an answer that cannot be."""
    if not NAME.fullmatch(name):
        raise UserError(f"name: {name!r} must be 2 to 40 small letters, digits and hyphens, and begin with a letter")
    problems = [text for each in target.questions if each.key in answers if (text := refusal(each, answers[each.key]))]
    if problems:
        raise UserError("; ".join(problems))
    text = files("cluster").joinpath(target.file).read_text(encoding="utf-8")
    if target.file == "aws.yaml" and "image" in answers:
        text = _from_registry(text, answers["image"].partition("/")[0])
    for question in target.questions:
        if question.key in answers:
            text = text.replace(question.example, _written(question, answers[question.key]))
    if "zone" in answers:
        text = _in_region(text, target, answers["zone"])
    if public_key is not None:
        text = text.replace("ssh-ed25519 AAAA-THE-CLUSTERS-PUBLIC-KEY", public_key)
    return _named(text, name)


def _written(question: Question, answer: str) -> str:
    """The answer as it stands in the file: an example may begin with its key."""
    key, separator, _ = question.example.partition(": ")
    return f"{key}: {answer}" if separator else answer


def _from_registry(text: str, registry: str) -> str:
    """The file with the log-in to Amazon's registry, ACCOUNT.dkr.ecr.REGION.amazonaws.com."""
    example = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    text = text.replace(f"--password-stdin {example}", f"--password-stdin {registry}")
    return text.replace(
        "get-login-password --region us-east-1", f"get-login-password --region {registry.split('.')[3]}"
    )


def _in_region(text: str, target: Target, zone: str) -> str:
    """The file in the region of a zone: us-east-1 of us-east-1a, us-central1 of us-central1-a."""
    if target.file == "aws.yaml":
        text = text.replace("region: us-east-1", f"region: {zone[:-1]}")
        return text.replace(".efs.us-east-1.", f".efs.{zone[:-1]}.")
    return text.replace("us-central1", zone.rpartition("-")[0])


def _named(text: str, name: str) -> str:
    text = text.replace("cluster_name: infosam", f"cluster_name: {name}")
    text = text.replace("/.infosam/clusters/infosam/", f"/.infosam/clusters/{name}/")
    text = text.replace("key_name: infosam-cluster", f"key_name: {name}-cluster")
    return re.sub(r"(IamInstanceProfile: \{Name: )infosam-", rf"\g<1>{name}-", text)
