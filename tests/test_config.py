"""Configs as users write them: the good one, the overrides, and every mistake with its one clear line."""

from pathlib import Path

import pytest

from jaxswap.config import Limit, format_size, load_config, parse_mthp, parse_policy, parse_size
from jaxswap.errors import InputError

GOOD = """
seed = 3
objective = "failed + 2 * major_faults"
reference = "16"
out = "runs/here"
[machine]
kernel = "7.3"
swap = "8M"
[space]
sizes = [64, 16]
modes = ["always", "madvise"]
[policies]
never = {}
cap = { order = [2, 4] }
[workloads.one]
trace = "one.t"
limit = "50%"
[workloads.tight]
trace = "one.t"
limit = "2M"
"""


def write(folder: Path, text: str) -> Path:
    (folder / "one.t").write_text("REGION 1024 plain\nFILL 0 1024\n")
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_good_config(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.name == "c"
    assert config.sizes == (16, 64)
    assert config.modes == ("always", "madvise")
    assert [str(policy) for policy in config.policies] == ["kernel", "never", "cap order=2", "cap order=4"]
    assert [(choice.name, choice.limit) for choice in config.workloads] == [
        ("one", Limit(percent=50)),
        ("tight", Limit(size=2 << 20)),
    ]
    assert (config.reference, config.seed, config.swap) == ("16", 3, Limit(8 << 20))
    assert str(config.objective) == "failed + 2 * major_faults"
    assert config.out == Path("runs/here")


def test_defaults(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, "[space]\nsizes=[16,64]\n[workloads.one]\ntrace='one.t'\nlimit='50%'\n")
    )
    assert (config.kernel, config.swap, config.seed, config.out) == ("7.3", None, 0, None)
    assert config.reference == "16 64"
    assert str(config.objective) == "dominance"
    assert [str(policy) for policy in config.policies] == ["kernel"]
    assert config.swap_of(5 << 20) == 10 << 20
    assert config.swap_of((5 << 20) + 4096) == 12 << 20


def test_overrides_win(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, GOOD),
        [
            "space.sizes=[32]",
            "workloads.one.limit=25%",
            "machine.swap = auto",
            "policies.cap.order=3",
            "seed=9",
        ],
    )
    assert config.sizes == (32,)
    assert config.workloads[0].limit == Limit(percent=25)
    assert (config.swap, config.seed) == (None, 9)
    assert [str(policy) for policy in config.policies] == ["kernel", "never", "cap order=3"]


# old text -> new text in GOOD, and what the line must say
MISTAKES = {
    "not TOML": ("seed = 3", "seed = ", ["is not TOML", "line 2"]),
    "unknown top key": ("seed = 3", "sed = 3", ["sed: unknown key", "did you mean 'seed'"]),
    "unknown far key": ("seed = 3", "zzz = 3", ["zzz: unknown key", "known: "]),
    "unknown machine key": ("kernel =", "kernl =", ["machine.kernl: unknown key", "'kernel'"]),
    "unknown space key": ("modes =", "mode =", ["space.mode: unknown key", "'modes'"]),
    "unknown workload key": (
        'limit = "50%"',
        'limits = "50%"\nlimit = "50%"',
        ["one.limits: unknown", "'limit'"],
    ),
    "seed type": ("seed = 3", 'seed = "3"', ["seed: expected a whole number", "'3'"]),
    "seed bool": ("seed = 3", "seed = true", ["seed: expected a whole number", "True"]),
    "seed negative": ("seed = 3", "seed = -1", ["seed: -1 is out of range", "0 to"]),
    "out type": ('out = "runs/here"', "out = 3", ["out: expected the path"]),
    "table is a value": ("[machine]\nkernel", "machine = 3\n[m2]\nkernel", ["machine: expected a table"]),
    "unknown kernel": ('kernel = "7.3"', 'kernel = "9.9"', ["machine.kernel: no profile", "'9.9'"]),
    "unknown lru": ('swap = "8M"', 'lru = "arc"', ["machine.lru: 'arc' is neither classic nor mglru"]),
    "swappiness": (
        'swap = "8M"',
        "swappiness = 300",
        ["machine.swappiness: 300 is out of range", "0 to 200"],
    ),
    "defrag": ('swap = "8M"', 'defrag = "maybe"', ["machine.defrag: 'maybe' is none of always", "madvise"]),
    "kernel type": ('kernel = "7.3"', "kernel = 7.3", ["machine.kernel: expected a string"]),
    "swap nonsense": ('swap = "8M"', 'swap = "big"', ["machine.swap", "'big' is not a size", '"128M"']),
    "swap small": ('swap = "8M"', 'swap = "64K"', ["machine.swap: 64K is out of range", "2M"]),
    "swap huge": ('swap = "8M"', 'swap = "900G"', ["machine.swap: 900G is out of range", "16G"]),
    "swap not pages": ('swap = "8M"', "swap = 8388609", ["machine.swap", "4 KiB pages"]),
    "sizes missing": ("sizes = [64, 16]", "", ["space.sizes: is missing", "[16, 32, 64]"]),
    "sizes empty": ("sizes = [64, 16]", "sizes = []", ["space.sizes: is empty"]),
    "sizes type": ("sizes = [64, 16]", 'sizes = "16 64"', ["space.sizes: expected a list"]),
    "sizes strings": ("sizes = [64, 16]", 'sizes = ["16"]', ["space.sizes: '16' is not a number"]),
    "size not mTHP": ("sizes = [64, 16]", "sizes = [48]", ["space.sizes: 48 kB is no mTHP size", "16, 32"]),
    "size of shmem": ("sizes = [64, 16]", "sizes = [8]", ["space.sizes: 8 kB exists for shmem only"]),
    "size twice": ("sizes = [64, 16]", "sizes = [64, 64]", ["space.sizes", "twice"]),
    "mode unknown": ('"madvise"]', '"never"]', ["space.modes: 'never' is no mode", "madvise"]),
    "mode twice": ('"madvise"]', '"always"]', ["space.modes", "each once"]),
    "policy unknown": ("never = {}", "nevr = {}", ["policies.nevr: unknown heuristic", "'never'"]),
    "policy not a table": ("never = {}", "never = 1", ["policies.never: expected a table"]),
    "policy parameter unknown": ("order =", "ordr =", ["policies.cap.ordr: unknown parameter", "'order'"]),
    "policy without parameters": ("never = {}", "never = {a = 1}", ["policies.never.a", "it takes none"]),
    "policy parameter range": ("[2, 4]", "[2, 44]", ["policies.cap.order: 44 is out of range", "to"]),
    "policy parameter type": ("[2, 4]", '"2"', ["policies.cap.order: expected a whole number", "'2'"]),
    "policy parameter float": ("[2, 4]", "[2.5]", ["policies.cap.order: expected a whole number", "2.5"]),
    "policy parameter empty": ("[2, 4]", "[]", ["policies.cap.order: is an empty list"]),
    "limit missing": ('limit = "2M"', "", ["workloads.tight.limit: is missing", "50%"]),
    "limit nonsense": ('limit = "2M"', 'limit = "much"', ["workloads.tight.limit: 'much'", '"24M"']),
    "limit of 100%": ('limit = "50%"', 'limit = "100%"', ["workloads.one.limit: 100% is out of range", "1%"]),
    "limit of 0%": ('limit = "50%"', 'limit = "0%"', ["workloads.one.limit: 0% is out of range"]),
    "limit small": ('limit = "2M"', 'limit = "100K"', ["workloads.tight.limit: 100K", "at least 1M"]),
    "limit not pages": ('limit = "2M"', "limit = 2097153", ["workloads.tight.limit", "4 KiB pages"]),
    "workload unknown": ('trace = "one.t"', 'trace = "two.t"', ["workloads.one.trace: 'two.t' is neither"]),
    "workload by bad name": (
        "[workloads.tight]\ntrace",
        "[workloads.tight]\n#",
        ["workloads.tight: 'tight' is"],
    ),
    "workload with a slash": ("[workloads.tight]", '[workloads."a/b"]', ["workloads.a/b", "trace ="]),
    "workload not a table": (
        'limit = "2M"',
        'limit = "2M"\n[workloads]\nx = 1',
        ["workloads.x: expected a table"],
    ),
    "reference nonsense": ('reference = "16"', 'reference = "17"', ["reference: '17' is not a set of sizes"]),
    "objective name": (
        "2 * major_faults",
        "2 * majr_faults",
        ["objective: unknown name 'majr_faults'", "'major"],
    ),
    "objective syntax": ("2 * major_faults", "2 *", ["objective: ", "is neither"]),
    "objective code": ("2 * major_faults", "open('x')", ["objective: ", "is not allowed"]),
    "objective attribute": ("2 * major_faults", "failed.real", ["objective: 'failed.real' is not allowed"]),
    "objective arguments": ("2 * major_faults", "min(1)", ["objective: min takes 2"]),
    "objective type": ('"failed + 2 * major_faults"', "3", ["objective: expected a string"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path: Path, mistake: str) -> None:
    old, new, said = MISTAKES[mistake]
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_config(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    for fragment in said:
        assert fragment in line


def test_too_many_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxswap.config.MOST_CANDIDATES", 5_000)
    text = GOOD.replace("[64, 16]", "[16,32,64,128,256,512,1024]").replace("[2, 4]", "[2,3,4,5,6,7,8]")
    text = text.replace('"2M"', '"8M"').replace(
        "never = {}", "never = {}\nsingle = { order = [2,3,4,5,6,7,8] }"
    )
    text += "\n[policies.backoff]\nlimit = [1,2,3,4,5,6,7,8,9,10]\n"
    with pytest.raises(InputError, match=r"space\.sizes: 255 masks times \d+ heuristics .* fewer sizes"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("seed.x=3", "seed is a value, not a table"),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("space.sizes=64", "space.sizes: expected a list"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(write(tmp_path, GOOD), [override])
    assert said in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml: no such config file; .*quickstart"):
        load_config(tmp_path / "no.toml")
    with pytest.raises(InputError, match="is a directory"):
        load_config(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not TOML"):
        load_config(tmp_path / "bytes.toml")
    with pytest.raises(InputError, match="workloads: is missing; add a table"):
        load_config(write(tmp_path, "[space]\nsizes=[16]\n"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24M", 24 << 20),
        ("1.5G", 3 << 29),
        ("512 KiB", 512 << 10),
        ("4096", 4096),
        ("x", None),
        ("-1M", None),
    ],
)
def test_parse_size(text: str, size: int | None) -> None:
    assert parse_size(text) == size
    if size:
        assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("64m 16", "16 64m"),
        ("", ""),
        ("16kB,32k", "16 32"),
        ("17", None),
        ("16 16", None),
        ("4", None),
        ("m", None),
    ],
)
def test_parse_mthp(text: str, normal: str | None) -> None:
    assert parse_mthp(text) == normal


def test_parse_policy() -> None:
    assert str(parse_policy("cap:order=3")) == "cap order=3"
    assert str(parse_policy("never")) == "never"
    for text, said in [
        ("cp", "unknown heuristic"),
        ("cap:order", "name=number"),
        ("cap:order=x", "name=number"),
        ("cap:order=99", "out of range"),
    ]:
        with pytest.raises(InputError, match=said):
            parse_policy(text)


def test_the_quick_start_is_right() -> None:
    config = load_config(Path(__file__).parents[1] / "configs" / "quickstart.toml")
    assert len(config.workloads) == 3
    assert config.reference == "16 32 64 128"
