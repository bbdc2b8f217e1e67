"""Given a configuration with a number that nobody can mean, or a file that is none, then it is refused when read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import catalog
from eventmesh import configuration, mesh
from eventmesh.errors import ConfigurationError

CONFIGS = Path(__file__).parents[2] / "configs"
#: Twelve lines of aliases that stand for more than 10 to the 10 values.
LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
VIEWS = (CONFIGS / "meshes" / "views.yaml").read_text()
STOCK = "stock: {owner: inventory, key: sku, partitions: 2,"
#: Numbers that nobody can mean, as YAML has them: 5,000 digits are more than Python reads.
NUMBERS = [".inf", "-.inf", ".nan", "1e400", str(2**70), "9" * 5_000, "0x" + "f" * 5_000, "1.5e300", "-1.0e+300"]


def refused(folder: Path, text: str | bytes) -> ConfigurationError:
    file = folder / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as caught:
        mesh.load(file)
    assert caught.value.file == str(file)
    assert len(str(caught.value)) < 1_000
    return caught.value


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("before", "key", "path"),
    [
        ("stock: {owner: inventory, key: sku, partitions: 2,", "partitions", "topics.stock.partitions"),
        (STOCK, "retention.ms", "topics.stock.retention.ms"),
        (STOCK, "retention.bytes", "topics.stock.retention.bytes"),
        (STOCK, "segment.bytes", "topics.stock.segment.bytes"),
        (STOCK, "segment.ms", "topics.stock.segment.ms"),
        ("key: order_id, partitions: 2, max.message.bytes: 16777216", "max.message.bytes", "max.message.bytes"),
        ("durability: os", "snapshot_rows", "log.snapshot_rows"),
        ("initial: demand", "instances", "services.inventory.instances"),
        ("initial: demand", "memory_s", "services.inventory.memory_s"),
        ("initial: demand", "restock", "services.inventory.restock"),
        ("decline_permille: 0", "decline_permille", "services.payments.decline_permille"),
        ("views: {outcomes: [orders]}", "open_orders_max", "services.gateway.open_orders_max"),
    ],
)
def test_a_number_that_nobody_can_mean(tmp_path: Path, before: str, key: str, path: str, number: str) -> None:
    written = f"{{below: {number}, quantity: 1}}" if key == "restock" else number
    kept = re.sub(rf",? *\b{re.escape(key)}: [^,}}]+,?", "", before)
    assert before in VIEWS
    text = VIEWS.replace(before, f"{kept}{'' if kept.rstrip().endswith((',', '{')) else ', '}{key}: {written}", 1)
    text = text.replace(f"{key}: {written} ", f"{key}: {written}, ").replace(", , ", ", ").replace("{, ", "{")
    error = refused(tmp_path, text)
    assert path in error.path or "line" in error.problem, error
    assert re.search(r"must be|digits|whole number|mistake", str(error)), error


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("partitions", 1_000), ("retention.ms", 9_223_372_036_854_775), ("retention.bytes", 2**63 - 1),
        ("segment.bytes", 2**31 - 1), ("segment.ms", 9_223_372_036_854_775), ("max.message.bytes", 32 << 20),
    ],
)  # fmt: skip
def test_each_limit_of_a_topic_is_in_the_schema_and_holds(key: str, most: int) -> None:
    document = yaml.safe_load(VIEWS)
    document["topics"]["stock"][key] = most
    mesh.parse(document)
    assert mesh.Mesh.json_schema()["$defs"]["TopicSection"]["properties"][key]["maximum"] == most
    document["topics"]["stock"][key] = most + 1
    with pytest.raises(ConfigurationError, match=f"must be less than or equal to {most}"):
        mesh.parse(document)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "found nothing"),
        (b"\x00\x01\x02\x03", "line 1, column 1: the character '\\x00' is not allowed"),
        (b"a: 1\nb: \xff\xfe", "line 2 is not UTF-8 (byte 8 is 0xff)"),
        ("name: Zoë".encode("utf-16"), "line 1 is not UTF-8"),
        ("a:\n\t- b\n", "line 2, column 1: a tab. YAML is indented with blanks"),
        ("[" * 5_000, "is nested deeper than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "is nested deeper than 50 levels"),
        ("a: &a [*a]\n", "for themselves"),
        (
            "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
            "1,000",
        ),
        ("a: !!bool maybe", "line 1, column 4: maybe is no truth value"),
        ("a: !!int ''", "is no whole number"),
        ("a: !!timestamp soon", "soon is no date"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("date: 2020-13-01", "line 1, column 7: 2020-13-01 is no date"),
        ("a: " + "9" * 5_000, "has too many digits"),
        ("a: 0x" + "f" * 5_000, "has too many digits"),
        ("0x" + "f" * 900 + ": 1", "has too many digits"),
        ("a: 1" + ":1" * 300 + ".5", "is no number"),
        ("x" * 2_000_000, "it has more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refused(tmp_path, text).problem


def test_a_folder_a_device_and_a_name_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "views.yaml").write_text(VIEWS)
    with pytest.raises(ConfigurationError, match=r"it is a folder. Name a file in it: views.yaml"):
        configuration.read(tmp_path)
    with pytest.raises(ConfigurationError, match="more than 1,000,000 bytes"):
        configuration.read("/dev/zero")
    with pytest.raises(ConfigurationError, match="cannot be read as text"):
        configuration.read("a\0b")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.binary(max_size=3)
    | st.sampled_from([2**70, 10**4_000, float("inf"), "orders", "stock", "*", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(each for key, value in items for each in places(value, (*path, key)))]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_whatever_stands_anywhere_it_is_a_mesh_or_a_mistake(data: st.DataObject) -> None:
    document = yaml.safe_load(VIEWS)
    *parents, last = data.draw(st.sampled_from(places(document)[1:]))
    section = document
    for step in parents:
        section = section[step]
    section[last] = data.draw(VALUES)
    if isinstance(section, dict) and data.draw(st.booleans()):
        section[data.draw(st.text(max_size=3) | st.integers() | st.none())] = data.draw(VALUES)
    said = ""
    try:
        mesh.parse(document, file="mine.yaml")
    except ConfigurationError as error:
        said = str(error)
    assert len(said) < 3_000


BENCHMARKS = {path.stem: path.read_text() for path in sorted((CONFIGS / "benchmarks").glob("*.yaml"))}


def scalars(node: Any) -> list[tuple[Any, ...]]:
    """Where the numbers stand."""
    return [place for place in places(node) if type(_at(node, place)) in (int, float)]


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        node = node[step]
    return node


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1e300, 2**70])
def test_every_number_of_every_benchmark_has_a_limit(tmp_path: Path, name: str, number: float) -> None:
    numbers = scalars(yaml.safe_load(BENCHMARKS[name]))
    assert numbers
    for *parents, last in numbers:
        document = yaml.safe_load(BENCHMARKS[name])
        _at(document, tuple(parents))[last] = number
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        with pytest.raises(ConfigurationError) as caught:
            catalog.load(CONFIGS / "benchmarks", str(file), quick="quick" in parents)
        assert caught.value.file == str(file), (parents, last)


def test_a_step_that_no_memory_holds(tmp_path: Path) -> None:
    document = yaml.safe_load(BENCHMARKS["order-flow"])
    document.update(offered_per_s=[1_000_000], window_s=80_000)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError, match="at most 10,000,000 requests"):
        catalog.load(CONFIGS / "benchmarks", str(file), quick=False)


def test_a_target_that_is_no_threshold_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for before, after in ((">=15000", "15000"), (">=15000", ">=many")):
        file.write_text(BENCHMARKS["order-flow"].replace(before, after))
        with pytest.raises(ConfigurationError, match="target: must be one of < <= > >= == and a number") as caught:
            catalog.load(CONFIGS / "benchmarks", str(file), quick=False)
        assert f"found text '{after}'" in str(caught.value)


def test_python_s_own_limit_of_digits_is_what_is_met_here() -> None:
    assert sys.get_int_max_str_digits() < 5_000
