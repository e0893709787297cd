"""Jobs that are not built in, as planning sees them: a process of their own answers for them.

Their code is executed there, by the interpreter that will execute the runs, as the user who asks;
one process answers for all the cells of a spec.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pydantic import ConfigDict, PrivateAttr, create_model

import ftd
from ftd import catalog, source
from ftd.document import KeyPath
from ftd.environment import inheritable
from ftd.errors import InputError
from ftd.job import Budget, Completed, Context, Input, Job, Params

ANSWER_S = 120.0  # importing a package from a busy disk may take long; nothing may take for ever


class Refusal(InputError):
    """What a job says against parameters; ``path`` leads to the one that is meant."""

    def __init__(self, what: str, fix: str, path: KeyPath, whole: bool) -> None:
        super().__init__(what, fix=fix)
        self.path = path
        self.whole = whole


class Described(Params):
    """Parameters whose types are known elsewhere, with what the job answered about them."""

    model_config = ConfigDict(extra="allow")

    _answer: dict[str, Any] = PrivateAttr(default_factory=dict)


class DescribedJob(Job[Described]):
    """Answers as the job `name` does, of which no code is executed here.

    ``code`` are the inputs that tell its code and interpreter, ``versions`` those of the libraries
    there, ``kept`` the bytes of its file (None for installed code).
    """

    def __init__(
        self, name: str, base: Path, python: str | None = None, also: Sequence[str] = ()
    ) -> None:
        self.name = source.shown_name(name)
        self._python = python or sys.executable
        file = source.file_of(name, base)
        data = None if file is None else source.file_bytes(file)
        self._conversation = _Conversation(self._python)
        told = self._conversation.ask(
            job=name,
            base=str(base),
            file=str(file),
            text=None if data is None else _text(data, file),
            also=list(also),
        )
        self._check(told, file)
        self.kept = data
        self.schema: Mapping[str, Any] = told["schema"]
        self.version = told["version"]  # type: ignore[misc]
        self.versions: Mapping[str, str | None] = told["versions"]
        self.Params = _loose(list(self.schema.get("properties", {})))  # type: ignore[misc]
        self.code: dict[str, dict[str, str]] = {}
        if told["source"]:
            self.code[source.SOURCE] = told["source"]
        if python is not None:
            self.code[source.INTERPRETER] = source.interpreter_input(python, told["python"])

    def resolve(self, params: Described, base: Path) -> Described:
        """Validate and resolve, over there; relative paths start where the spec is."""
        answer = self._conversation.ask(params=params.model_dump(exclude_unset=True))
        resolved = self.Params.model_validate(answer["params"])
        assert isinstance(resolved, Described)
        resolved._answer = answer
        return resolved

    def with_budget(self, params: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """What the budget means for the job."""
        answer = self._conversation.ask(params=params, budget=budget.model_dump())
        found: Mapping[str, Any] = answer["params"]
        return found

    def identity(self, params: Described) -> Mapping[str, Any]:
        """As the job answered."""
        found: Mapping[str, Any] = params._answer["identity"]
        return found

    def inputs(self, params: Described) -> Mapping[str, Input]:
        """As the job answered; its code is not among them."""
        return {
            name: Input(kind, where, tuple((factor, level) for factor, level in cell), file)
            for name, (kind, where, cell, file) in params._answer["inputs"].items()
        }

    def primary_metric(self, params: Described) -> str:
        """As the job answered."""
        return str(params._answer["primary_metric"])

    def labels_used(self, params: Described) -> str:
        """As the job answered."""
        return str(params._answer["labels_used"])

    def run(self, params: Described, context: Context) -> Completed:
        """Workers run the job itself."""
        raise NotImplementedError(f"{self.name} is only described here")

    def _check(self, told: Mapping[str, Any], file: Path | None) -> None:
        if told["ftd"] != ftd.__version__:
            raise InputError(
                f"{self._python} has ftd {told['ftd']}, this is {ftd.__version__}",
                fix=f"Install the same version there: {_install(self._python)}",
            )
        if told["imported"]:
            libraries = ", ".join(told["imported"])
            raise InputError(
                f"importing the job imports {libraries}, which planning would wait for",
                where=str(file) if file else self.name,
                fix=f"Move `import {told['imported'][0]}` into run(), or below "
                "`if TYPE_CHECKING:` where only annotations need it",
            )


def find(name: str, base: Path, python: str | None = None, also: Sequence[str] = ()) -> Job[Any]:
    """The job that a spec in the folder `base` calls `name`, executed by the interpreter `python`.

    `also` names the keys of a spec that are not the job's.  Raises InputError for code that cannot
    be imported or is no job, UnknownName for a name that nothing answers to.
    """
    plain = python is None and ":" not in name
    if plain and (name in catalog.BUILT_IN or name not in source.entry_points()):
        return catalog.job(name)
    return DescribedJob(name, base, python, also)


class _Conversation:
    """With a process that describes a job; it ends when nobody needs it any more."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed at the end)
        try:
            self._process = subprocess.Popen(
                [python, "-P", "-m", "ftd.worker", "--describe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=inheritable(os.environ),
            )
        except OSError as error:
            raise InputError(
                f"cannot start {python} ({error.strerror})", fix="Check the path"
            ) from error
        self._end = weakref.finalize(self, _end, self._process, self._errors)

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request and its answer.  Raises InputError or Refusal for what is refused."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            self._process.kill()
            raise InputError(f"the job's code did not answer within {ANSWER_S:.0f} s")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        reply = json.loads(line)
        if "answer" in reply:
            answer: dict[str, Any] = reply["answer"]
            return answer
        refused = reply["refused"]
        what, fix = refused["what"], refused.get("fix", "")
        if "path" in refused:
            raise Refusal(what, fix, tuple(refused["path"]), refused["whole"])
        raise InputError(what, where=refused.get("where", ""), fix=fix)

    def _ended(self) -> InputError:
        """The process is gone: what it said last."""
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        if "No module named" in last and ("ftd" in last or "pydantic" in last):
            return InputError(
                f"{self._python} cannot import ftd ({last.rpartition(': ')[2]})",
                fix=f"Install it there: {_install(self._python)}",
            )
        return InputError(f"the job's code ended its process (status {status}): {last}")


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.kill()
    process.wait()
    process.stdout.close()
    errors.close()


def _loose(names: Sequence[str]) -> type[Described]:
    """Parameters of these names, of any type."""
    fields: dict[str, Any] = {name: (Any, None) for name in names}
    return create_model("Params", __base__=Described, **fields)


def _text(data: bytes, file: Path | None) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=str(file), fix="Save it as UTF-8") from error


def _install(python: str) -> str:
    return f"{python} -m pip install --no-deps finetune-daemon=={ftd.__version__} pydantic"
