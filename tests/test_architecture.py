"""The floors of the house: imports point down, torch stays in its rooms, files stay small.

The rules read the source with `ast` and import nothing. The second half feeds each rule a bad
tree, so that it is seen to bite; the end looks at a live process.
"""

import ast
import graphlib
import importlib.util
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "xtec"
ROOT = Path(__file__).parents[1] / PACKAGE

FLOORS = (
    ("cli",),
    ("train", ""),
    ("accessor",),
    ("seeing",),
    ("plot", "io"),
    ("cluster",),
    ("cube",),
    ("zarr_v2", "zarr_v3"),
    ("codec", "terracodec", "secondhand"),
    ("pixels", "home", "shelf"),
    ("settings",),
    ("engine",),
    ("models",),
    ("residual",),
    ("coding",),
    ("sample",),
    ("sentinel2", "metrics", "fill", "aside"),
    ("errors",),
)
"""Rooms from the roof down, "" being the package itself, which offers the accessor's names.

A room imports from lower floors only, never from a neighbour.
"""

DEPTH = {room: depth for depth, floor in enumerate(FLOORS) for room in floor}

TORCH_ROOMS = {"models", "engine", "terracodec", "train"}
TORCH_IN_FUNCTIONS = TORCH_ROOMS | {"codec", "cli"}
ZARR_ROOMS = {"zarr_v2", "zarr_v3"}
ZARR_INTERFACES = ("numcodecs.abc", "zarr.abc", "zarr.core")
UNKNOWN_TO_CODING = {"torch", "zarr", "numcodecs", "xarray", "dask"}


@dataclass(frozen=True)
class Import:
    """`module` (in room `room`) imports `target`, when it is itself imported or only later."""

    module: str
    target: str
    at_import: bool

    @property
    def room(self):
        return room_of(self.module)

    def __str__(self):
        return f"{self.module} imports {self.target}"


def room_of(module):
    """The first name below the package: "xtec.coding.rans" -> "coding"; "xtec" -> ""."""
    return f"{module}.".split(".")[1]


def read(root):
    """Dotted name -> syntax tree of every module of a package."""
    trees = {}
    for path in sorted(root.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        name = ".".join(parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return trees


def imports(trees, packages):
    """Every import of every module; names from our own package are those of modules."""
    found = []
    for module, tree in trees.items():
        package = module if module in packages else module.rpartition(".")[0]
        for node, at_import in walk(tree):
            found += [
                Import(module, shorten(target, trees), at_import)
                for target in targets(node, package)
            ]
    return found


def shorten(target, trees):
    """Drop what lies inside one of our modules: xtec.errors.BandError -> xtec.errors."""
    while target.startswith(PACKAGE + ".") and target not in trees:
        target = target.rpartition(".")[0]
    return target


def walk(node, at_import=True):
    """Every node below `node`, and whether it runs when the module is imported."""
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
        isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    for child in ast.iter_child_nodes(node):
        yield child, at_import and not later
        yield from walk(child, at_import and not later)


def targets(node, package):
    """The dotted names that one import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


class House:
    """A package and what its modules import."""

    def __init__(self, root):
        self.root = root
        self.trees = read(root)
        packages = {
            name for name in self.trees if any(m.startswith(name + ".") for m in self.trees)
        }
        self.imports = imports(self.trees, packages | {PACKAGE})
        self.ours = [each for each in self.imports if each.target.split(".")[0] == PACKAGE]

    def of(self, *names):
        """The imports of these outside packages."""
        return [each for each in self.imports if each.target.split(".")[0] in names]


def rooms_without_floor(house):
    rooms = {room_of(module) for module in house.trees}
    return [f"{room} stands on no floor" for room in sorted(rooms - DEPTH.keys())]


def imports_point_down(house):
    return [
        str(each)
        for each in house.ours
        if each.room != room_of(each.target)
        and {each.room, room_of(each.target)} <= DEPTH.keys()
        and DEPTH[each.room] >= DEPTH[room_of(each.target)]
    ]


def rooms_have_no_circles(house):
    graph = {}
    for each in house.ours:
        if each.at_import and each.module != each.target:
            graph.setdefault(each.module, set()).add(each.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def torch_stays_in_its_rooms(house):
    return [
        str(each)
        for each in house.of("torch")
        if each.room not in (TORCH_ROOMS if each.at_import else TORCH_IN_FUNCTIONS)
    ]


def light_rooms_do_not_reach_torch(house):
    """Importing a module runs its imports, theirs, and the packages around them."""
    heavy = {each.module for each in house.of("torch") if each.at_import}
    while True:
        more = {
            each.module
            for each in house.ours
            if each.at_import
            and any(
                each.target == module or each.target.startswith(module + ".") for module in heavy
            )
        } - heavy
        if not more:
            break
        heavy |= more
    return sorted(
        f"importing {module} imports torch"
        for module in heavy
        if room_of(module) not in TORCH_ROOMS
    )


def zarr_interfaces_stay_in_the_sockets(house):
    named = [(each.module, each.target) for each in house.of("numcodecs", "zarr")]
    for module, tree in house.trees.items():
        named += [
            (module, ast.unparse(node))
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
        ]
    return sorted(
        {
            f"{module} names {target}"
            for module, target in named
            if room_of(module) not in ZARR_ROOMS
            and any(f"{target}.".startswith(f"{each}.") for each in ZARR_INTERFACES)
        }
    )


def coding_knows_integers_and_bytes_only(house):
    return [str(each) for each in house.of(*UNKNOWN_TO_CODING) if each.room == "coding"]


def files_are_small(house):
    lines = {
        path.relative_to(house.root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in house.root.rglob("*.py")
        if path.name != "__init__.py"
    }
    found = [
        f"{name} has {count} lines, 400 are allowed" for name, count in lines.items() if count > 400
    ]
    median = statistics.median(lines.values())
    return found + [f"the median file has {median} lines, 200 are allowed"] * (median > 200)


RULES = (
    rooms_without_floor,
    imports_point_down,
    rooms_have_no_circles,
    torch_stays_in_its_rooms,
    light_rooms_do_not_reach_torch,
    zarr_interfaces_stay_in_the_sockets,
    coding_knows_integers_and_bytes_only,
    files_are_small,
)


@pytest.fixture(scope="module")
def house():
    return House(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule, house):
    assert rule(house) == []


LONG = "\n" * 401

BAD_TREES = [
    ({"attic.py": ""}, rooms_without_floor, "attic stands on no floor"),
    ({"codec.py": "import xtec.cube", "cube.py": ""}, imports_point_down, "xtec.cube"),
    ({"codec.py": "from xtec import cube", "cube.py": ""}, imports_point_down, "xtec.cube"),
    ({"codec.py": "from . import cube", "cube.py": ""}, imports_point_down, "xtec.cube"),
    ({"codec.py": "def f():\n from xtec.cube import g", "cube.py": ""}, imports_point_down, "cube"),
    ({"errors.py": "from xtec import __version__"}, imports_point_down, "imports xtec"),
    ({"zarr_v3.py": "import xtec.zarr_v2", "zarr_v2.py": ""}, imports_point_down, "zarr_v2"),
    ({"accessor.py": "import xtec.train", "train/__init__.py": ""}, imports_point_down, "train"),
    ({"__init__.py": "import xtec.cli", "cli.py": ""}, imports_point_down, "xtec imports xtec.cli"),
    (
        {
            "coding/a.py": "from . import b",
            "coding/b.py": "from . import a",
            "coding/__init__.py": "",
        },
        rooms_have_no_circles,
        "xtec.coding.a -> xtec.coding.b",
    ),
    ({"codec.py": "import torch.nn"}, torch_stays_in_its_rooms, "xtec.codec imports torch.nn"),
    ({"codec.py": "try:\n import torch\nfinally: ..."}, torch_stays_in_its_rooms, "xtec.codec"),
    ({"codec.py": "class A:\n import torch"}, torch_stays_in_its_rooms, "xtec.codec"),
    ({"cube.py": "def f():\n import torch"}, torch_stays_in_its_rooms, "xtec.cube imports torch"),
    (
        {
            "codec.py": "from xtec.models.network import Network",
            "models/network.py": "import torch",
            "accessor.py": "import xtec.codec",
        },
        light_rooms_do_not_reach_torch,
        "importing xtec.codec imports torch",
    ),
    (
        {
            "codec.py": "from xtec.models.config import ModelConfig",
            "models/__init__.py": "import torch",
            "models/config.py": "",
        },
        light_rooms_do_not_reach_torch,
        "importing xtec.codec imports torch",
    ),
    ({"cube.py": "from zarr import abc"}, zarr_interfaces_stay_in_the_sockets, "names zarr.abc"),
    (
        {"accessor.py": "import numcodecs\nnumcodecs.abc.Codec"},
        zarr_interfaces_stay_in_the_sockets,
        "xtec.accessor names numcodecs.abc",
    ),
    (
        {"coding/rans.py": "def f():\n from torch import int32"},
        coding_knows_integers_and_bytes_only,
        "xtec.coding.rans imports torch.int32",
    ),
    ({"codec.py": LONG, "cube.py": "", "cli.py": ""}, files_are_small, "codec.py has 401 lines"),
    ({"codec.py": LONG[:201]}, files_are_small, "the median file has 201"),
]

GOOD_TREE = {
    "__init__.py": "from xtec import accessor, errors",
    "errors.py": "",
    "accessor.py": "from xtec.codec import encode\nimport zarr, numcodecs\nzarr.open",
    "codec.py": "from xtec.models.config import C\ndef f():\n import torch, xtec.models.network",
    "models/__init__.py": "",
    "models/config.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import torch",
    "models/network.py": "import torch\nfrom .config import C\nfrom ..errors import XtecError",
    "zarr_v3.py": "from zarr.abc.codec import ArrayBytesCodec\nimport xtec.codec",
    "cli.py": "import xtec\nfrom xtec.accessor import A\ndef f():\n from xtec import train",
    "train/__init__.py": "from xtec.train import loop",
    "train/loop.py": "import torch, xtec.models.network",
}


def build(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(tmp_path / PACKAGE)


@pytest.mark.parametrize(("files", "rule", "complaint"), BAD_TREES)
def test_a_bad_tree_is_found_out(tmp_path, files, rule, complaint):
    assert complaint in "\n".join(rule(build(tmp_path, files)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_passes(tmp_path, rule):
    assert rule(build(tmp_path, GOOD_TREE)) == []


def test_every_rule_has_a_bad_tree():
    assert {rule for _, rule, _ in BAD_TREES} == set(RULES)


def loads_torch(statement):
    """Whether a fresh interpreter has torch in memory after a statement."""
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_importing_xtec_imports_no_torch():
    light = sorted(
        path.stem
        for path in ROOT.glob("*.py")
        if path.stem not in TORCH_ROOMS | {"__init__", "__main__"}
    )
    assert not loads_torch(f"import xtec\nfrom xtec import {', '.join(light)}")


def test_the_torch_canary_can_sing():
    assert loads_torch("import torch")
