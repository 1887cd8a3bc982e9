"""A heuristic of the user's own: a Policy in a Python file, loaded and checked before any replay."""

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxswap.errors import InputError, reason
from jaxswap.policy.base import MEMORY_WORDS, MOST_PARAMS, Decision, Param, Policy, Verdict
from jaxswap.policy.describe import foresees
from jaxswap.policy.probes import features, leaving, memory_of, outcomes

MOST_BYTES = 1 << 20
_INT32 = np.iinfo(np.int32)
_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerArrayConversionError,
)


@dataclass(frozen=True)
class Own:
    """A heuristic and where it came from: the file, and a hash of its content."""

    policy: Policy
    path: Path
    sha256: str


def load_own(path: Path, name: str) -> Own:
    """The Policy that the file holds under this name.

    The file is run once. Raises InputError, one line that begins with the file (and line, where there is
    one), if it cannot be read or run, has no such Policy, or if its functions do not take and return what
    jaxswap.policy.base says, for any number of lanes.
    """
    source = _read(path)
    sha256 = hashlib.sha256(source).hexdigest()
    found = getattr(_run(path, source, sha256), name, None)
    if found is None:
        raise InputError(f"{path}: has no {name!r}; write {name} = Policy({name!r}, ...) in it")
    if not isinstance(found, Policy):
        raise InputError(
            f"{path}: {name} is of type {type(found).__name__}, not a jaxswap.policy.Policy; write {name} = "
            f"Policy({name!r}, what it does, decide)"
        )
    _check_said(path, name, found)
    policy = replace(found, name=name)
    _check_signature(path, "decide", policy.decide, ("params", "memory", "seen"))
    _check_signature(path, "learn", policy.learn, ("params", "memory", "outcome"))
    _check_signature(path, "note", policy.note, ("params", "block", "outcome"))
    _check_signature(path, "leave_whole", policy.leave_whole, ("params", "memory", "leaving"))
    for lanes in (1, 3):
        _check_shapes(path, policy, lanes)
    if foresees(policy):
        raise InputError(
            f"{path}: {name} looks at seen.future, which no kernel knows; leave that to `clairvoyant`"
        )
    _check_lanes(path, policy)
    return Own(policy, path, sha256)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            source = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it is looked for beside the config") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; name a Python file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from None
    if len(source) > MOST_BYTES:
        raise InputError(
            f"{path}: is larger than {MOST_BYTES >> 20} MiB; a heuristic is some lines of Python"
        )
    return source


def _run(path: Path, source: bytes, sha256: str) -> ModuleType:
    module = ModuleType(f"jaxswap_own_{sha256[:16]}")
    module.__file__ = str(path)
    try:
        code = compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise InputError(f"{path}{line}: is not Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: is not Python: {_said(error)}") from None
    # dataclasses of the file look their module up
    sys.modules[module.__name__] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(f"{_place(path, error)}: loading it raises {_said(error)}") from None
    return module


def _check_said(path: Path, name: str, policy: Policy) -> None:
    """What the file says of the heuristic, rather than what that does."""
    if policy.expressible_in_sysfs:
        raise InputError(f"{path}: {name}: expressible_in_sysfs is for the kernel's own rule; leave it out")
    if not isinstance(policy.doc, str) or not policy.doc.strip() or "\n" in policy.doc:
        raise InputError(f"{path}: {name}: doc is not a line of text; say what the heuristic does")
    params = policy.params
    if not isinstance(params, tuple) or not all(isinstance(param, Param) for param in params):
        raise InputError(f"{path}: {name}: params is not a tuple of Param; write params=(Param(...),)")
    if len(params) > MOST_PARAMS:
        raise InputError(f"{path}: {name}: {len(params)} parameters; a heuristic has at most {MOST_PARAMS}")
    names = [param.name for param in params]
    for param in params:
        if not isinstance(param.name, str) or not param.name.isidentifier() or names.count(param.name) > 1:
            raise InputError(f"{path}: {name}: parameter {param.name!r}; take a name of its own")
        if param.name == "file":
            raise InputError(f"{path}: {name}: parameter 'file' is a key of the config; take another name")
        values = (param.low, param.default, param.high)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise InputError(
                f"{path}: {name}: parameter {param.name}: default, low and high are whole numbers"
            )
        if not _INT32.min <= param.low <= param.default <= param.high <= _INT32.max:
            raise InputError(
                f"{path}: {name}: parameter {param.name}: low {param.low}, default {param.default}, high "
                f"{param.high} are not in this order, or no 32-bit numbers"
            )


def _check_signature(path: Path, what: str, function: Any, names: tuple[str, ...]) -> None:
    wanted = f"write def {what}({', '.join(names)})"
    if not callable(function):
        raise InputError(f"{path}: {what} is of type {type(function).__name__}, not a function; {wanted}")
    try:
        signature = inspect.signature(function)
        signature.bind(*names)
    except TypeError:
        code = getattr(function, "__code__", None)
        line = f":{code.co_firstlineno}" if code is not None and code.co_filename == str(path) else ""
        raise InputError(
            f"{path}{line}: {what} takes ({', '.join(signature.parameters)}); {wanted}"
        ) from None
    except ValueError:
        pass  # a builtin that says nothing of its arguments: tracing will tell
    if type(function).__hash__ is None:
        raise InputError(f"{path}: {what} cannot be hashed, as JAX must; {wanted}")


def _check_shapes(path: Path, policy: Policy, lanes: int) -> None:
    params, memory = jnp.zeros((MOST_PARAMS, lanes), jnp.int32), memory_of(lanes)
    seen = jax.tree.map(lambda x: x[..., :lanes], features())
    outcome = jax.tree.map(lambda x: x[..., :lanes], outcomes())
    decided = _traced(path, "decide", policy.decide, params, memory, seen)
    if not isinstance(decided, Decision):
        raise InputError(
            f"{path}: decide returns no Decision; return Decision(...), or offer(orders, memory)"
        )
    words = (MEMORY_WORDS, lanes)
    wanted = {"orders": ("uint32", (lanes,)), "memory": ("int32", words)}
    wanted |= {"ptes": ("int32", (lanes,)), "slots": ("int32", (lanes,))}
    for field, (dtype, shape) in wanted.items():
        _check_array(path, f"decide returns {field}", getattr(decided, field), dtype, shape)
    learned = _traced(path, "learn", policy.learn, params, memory, outcome)
    _check_array(path, "learn returns", learned, "int32", words)
    noted = _traced(path, "note", policy.note, params, memory[0], outcome)
    _check_array(path, "note returns", noted, "int32", (lanes,))
    folio = jax.tree.map(lambda x: x[:lanes], leaving())
    verdict = _traced(path, "leave_whole", policy.leave_whole, params, memory, folio)
    if not isinstance(verdict, Verdict):
        raise InputError(
            f"{path}: leave_whole returns no Verdict; return Verdict(whole, ptes, pages), or unread(whole)"
        )
    for field, dtype in {"whole": "bool", "ptes": "int32", "pages": "int32"}.items():
        _check_array(path, f"leave_whole returns {field}", getattr(verdict, field), dtype, (lanes,))


def _traced(path: Path, what: str, function: Callable, *arguments: Any) -> Any:
    """What the function returns, in shapes alone."""
    try:
        return jax.eval_shape(function, *arguments)
    except _TRACED as error:
        raise InputError(
            f"{_place(path, error)}: {what} asks for a value that is not there while it is traced; write "
            "jnp.where(condition, a, b) in place of if, and jnp in place of int, bool and numpy"
        ) from None
    except Exception as error:
        raise InputError(f"{_place(path, error)}: {what} raises {_said(error)} while it is traced") from None


def _check_array(path: Path, what: str, found: Any, dtype: str, shape: tuple[int, ...]) -> None:
    had = (str(getattr(found, "dtype", "")), getattr(found, "shape", None))
    if had != (dtype, shape):
        lanes = shape[-1]
        is_now = f"{had[0]}{list(had[1])}" if had[1] is not None else f"a {type(found).__name__}"
        many = "1 lane" if lanes == 1 else f"{lanes} lanes"
        raise InputError(f"{path}: {what} {is_now} for {many}; make it {dtype}{list(shape)}")


def _check_lanes(path: Path, policy: Policy) -> None:
    """A lane's answer may depend on its own arguments only: how many go together is the device's choice."""
    # numpy: taking a lane out of an array of JAX would be a program for each lane
    seen, after, folios = jax.device_get((features(), outcomes(), leaving()))
    for what, function, given in (
        ("decide", policy.decide, seen),
        ("learn", policy.learn, after),
        ("note", policy.note, after),
        ("leave_whole", policy.leave_whole, folios),
    ):
        lanes = given[0].shape[0]
        params = np.zeros((MOST_PARAMS, lanes), np.int32)
        for row, param in enumerate(policy.params):
            params[row] = np.linspace(param.low, param.high, lanes).astype(np.int32)
        kept = np.zeros(lanes if what == "note" else (MEMORY_WORDS, lanes), np.int32)
        arguments = (params, kept, given)
        asked = jax.jit(function)
        together = jax.device_get(asked(*arguments))
        for lane in range(lanes):
            only = slice(lane, lane + 1)
            alone = jax.device_get(asked(*jax.tree.map(lambda x, only=only: x[..., only], arguments)))
            same = jax.tree.map(lambda a, b, only=only: bool((a[..., only] == b).all()), together, alone)
            if not all(jax.tree.leaves(same)):
                raise InputError(
                    f"{path}: {what} answers otherwise for a lane alone than beside others; make it a pure "
                    "function that treats each lane by itself (no sums over lanes, no state outside memory)"
                )


def _place(path: Path, error: BaseException) -> str:
    """File and the last line of it that the error went through."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _said(error: BaseException) -> str:
    """Type and first line of an error."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
