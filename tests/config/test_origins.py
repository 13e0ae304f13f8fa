"""Values of a configuration of many files are found where they were written."""

from pathlib import Path

import pytest

from qanat.config.load import Loaded, load
from qanat.config.origins import Origins
from qanat.config.places import KeyPath, Place

__all__: list[str] = []


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    (tmp_path / "a.toml").write_text('drain = 3\n[log]\nlevel = "info"\n')
    (tmp_path / "b.yaml").write_text(
        "log: {level: debug, output: stderr}\nendpoints:\n- listen: :1\n  remote: a:1\n"
    )
    (tmp_path / "c.json").write_text('{"endpoints": [\n {"local": ":2", "remote": "a:1"}]}')
    return load(tmp_path)


@pytest.mark.parametrize(
    ("path", "written", "file", "line"),
    [
        (("drain",), ("drain",), "a.toml", 1),
        (("log", "level"), ("log", "level"), "a.toml", 3),
        (("log", "output"), ("log", "output"), "b.yaml", 1),
        (("endpoints", 0, "remote"), ("endpoints", 0, "remote"), "b.yaml", 4),
        (("endpoints", 1), ("endpoints", 0), "c.json", 2),
        (("endpoints", 1, "listen"), ("endpoints", 0, "local"), "c.json", 2),
        (("endpoints", 1, "name"), ("endpoints", 0, "name"), "c.json", 2),
    ],
)
def test_places(
    loaded: Loaded, tmp_path: Path, path: KeyPath, written: KeyPath, file: str, line: int
) -> None:
    found, place = loaded.origins.locate(path)
    assert (found, place.file, place.line) == (written, str(tmp_path / file), line)


@pytest.mark.parametrize("path", [("workers",), ("dns", "mode"), ("endpoints", 9, "listen"), ()])
def test_what_nobody_wrote_has_no_place(loaded: Loaded, path: KeyPath) -> None:
    assert loaded.origins.locate(path) == (path, Place())
    assert Origins().locate(path) == (path, Place())


def test_problem(loaded: Loaded, tmp_path: Path) -> None:
    problem = loaded.origins.problem(("endpoints", 1, "remote"), "is far", value="a:1", hint="go")
    assert str(problem) == (f'{tmp_path}/c.json:2:18: endpoints[0].remote = "a:1": is far (go)')
