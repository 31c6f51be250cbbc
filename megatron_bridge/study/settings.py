"""The study file: which methods, on which policies, with which seeds, and what is tried for each beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from trace_dsl.errors import RunFileError
from trace_dsl.strict_yaml import Strict, YamlError, load_yaml, problems, where

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
LET = "let "

# Values of settings of the run file, and of a spec's lets as "let NAME".
Point = tuple[tuple[str, Any], ...]


class MethodSettings(Strict):
    """One objective. spec: its file; search: by setting of the run file, or `let NAME` of the spec, the values tried;
    set: settings in which its runs differ from the others, for controls that no spec can make; about: a line for
    people.
    """

    spec: str
    about: str = ""
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)

    @property
    def points(self) -> tuple[Point, ...]:
        """Every combination of the values tried."""
        return tuple(tuple(zip(self.search, values, strict=True)) for values in product(*self.search.values()))


class PolicySettings(Strict):
    """A policy to start from, and the seeds that are reported on it. policy: its directory, or those of several that
    were made alike from other seeds: the seeds of the study take them in turn, searches the first; methods: those that
    are run on it, all where it names none; settings_from: another policy, whose search decides on this one too; about:
    a line for people.
    """

    policy: str | Annotated[list[str], Field(min_length=1)]
    seeds: Seeds
    methods: list[str] = Field(default_factory=list)
    settings_from: str | None = None
    about: str = ""

    def policy_of(self, seed: int) -> str:
        """The directory that a run with this seed starts from."""
        if isinstance(self.policy, str):
            return self.policy
        return self.policy[self.seeds.index(seed) % len(self.policy)] if seed in self.seeds else self.policy[0]


class StudyFile(Strict):
    """run: the run file that all runs share; search_seeds: seeds on which settings are chosen, none of them reported;
    baseline: the method that the others are compared with; compare: further pairs, a method and what it is compared
    with; results: the folder of records, tables and plots. Paths are relative to the study file.
    """

    name: Name
    run: str
    policies: Annotated[dict[Name, PolicySettings], Field(min_length=1)]
    methods: Annotated[dict[Name, MethodSettings], Field(min_length=2)]
    baseline: str
    search_seeds: Seeds
    compare: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    results: str = "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study file that was read and checked; `path` is where it stands."""

    file: StudyFile
    path: Path

    @property
    def run_file(self) -> Path:
        return self.path.parent / self.file.run

    @property
    def results(self) -> Path:
        return self.path.parent / self.file.results

    def methods_on(self, policy: str) -> tuple[str, ...]:
        """The methods that are run on a policy, in the order of the study file."""
        chosen = self.file.policies[policy].methods
        return tuple(method for method in self.file.methods if not chosen or method in chosen)

    def searched_on(self, policy: str) -> str:
        """The policy whose search decides on the settings of runs on `policy`."""
        return self.file.policies[policy].settings_from or policy

    def spec(self, method: str) -> Path:
        return self.path.parent / self.file.methods[method].spec


def load_study(path: Path) -> Study:
    """Read and check a study file. Raises RunFileError whose message holds every mistake, one a line."""
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (UnicodeDecodeError, YamlError) as error:
        place = error.place if isinstance(error, YamlError) else ""
        raise RunFileError(f"{path}{place}: no YAML: {error}") from error
    try:
        file = StudyFile.model_validate(settings)
    except ValidationError as error:
        told = "\n".join(f"{path}: {where(place)}: {message}" for place, message in problems(error, StudyFile))
        raise RunFileError(told) from error
    study = Study(file=file, path=path)
    if mistakes := list(_mistakes(study)):
        raise RunFileError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return study


def _mistakes(study: Study) -> list[str]:
    file = study.file
    found = []
    if file.baseline not in file.methods:
        found.append(f"baseline: {file.baseline!r} is none of the methods: choose from {', '.join(file.methods)}")
    found += [
        f"compare: {method!r} is none of the methods: choose from {', '.join(file.methods)}"
        for method in dict.fromkeys(name for pair in file.compare for name in pair)
        if method not in file.methods
    ]
    budgets = {name: len(method.points) for name, method in file.methods.items()}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in budgets.items())
        found.append(
            f"methods: every method is given the same number of settings to try, but they have {told}; give `search` "
            "of each as many combinations"
        )
    for name, policy in file.policies.items():
        if shared := sorted(set(policy.seeds) & set(file.search_seeds)):
            found.append(
                f"policies.{name}.seeds: {', '.join(map(str, shared))} are search_seeds too; settings chosen on a seed "
                "cannot be reported on it: take other seeds"
            )
        if len(set(policy.seeds)) < len(policy.seeds):
            found.append(f"policies.{name}.seeds: a seed stands twice")
        found += [
            f"policies.{name}.methods: {method!r} is none of the methods: choose from {', '.join(file.methods)}"
            for method in policy.methods
            if method not in file.methods
        ]
        found += _mistakes_of_source(study, name, policy.settings_from)
        if policy.methods and file.baseline not in policy.methods:
            found.append(f"policies.{name}.methods: {file.baseline!r} is missing, with which the others are compared")
    found += [
        f"methods.{name}.spec: no file {str(study.spec(name))!r} (paths are relative to the study file)"
        for name in file.methods
        if not study.spec(name).is_file()
    ]
    if not study.run_file.is_file():
        found.append(f"run: no file {str(study.run_file)!r} (paths are relative to the study file)")
    return found


def _mistakes_of_source(study: Study, policy: str, source: str | None) -> list[str]:
    """Of the policy whose settings another one takes."""
    if source is None:
        return []
    place, policies = f"policies.{policy}.settings_from", study.file.policies
    if source not in policies or policies[source].settings_from is not None:
        own = ", ".join(name for name, one in policies.items() if one.settings_from is None)
        return [f"{place}: {source!r} is no policy with a search of its own: choose from {own}"]
    searched = study.methods_on(source)
    return [
        f"{place}: {source!r} has no search of {method!r}: add it to its methods, or leave it out here"
        for method in study.methods_on(policy)
        if method not in searched
    ]
