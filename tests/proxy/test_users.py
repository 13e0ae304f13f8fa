"""The file of users: what a line may say, and how one is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from qanat.errors import ConfigError, QanatError
from qanat.proxy.auth import verify_password
from qanat.proxy.users import LARGEST, read_users, remove_user, store_user

__all__: list[str] = []


def test_a_user_comes_changes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "users"
    assert store_user(path, "alice", "one") is True
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(f"# all of us\n{path.read_text().rstrip()} connections=5 up=1MB/s\n")
    assert store_user(path, "alice", "two") is False
    assert store_user(path, "bob", "three") is True
    users = read_users(path)
    assert list(users) == ["alice", "bob"]
    assert (users["alice"].connections, users["alice"].up, users["alice"].down) == (5, 10**6, 0)
    assert verify_password("two", users["alice"].hashed)
    assert not verify_password("one", users["alice"].hashed)
    assert users["alice"].hashed not in repr(users["alice"])
    assert path.read_text().startswith("# all of us\n")
    assert remove_user(path, "alice") is True
    assert remove_user(path, "alice") is False
    assert list(read_users(path)) == ["bob"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["users"]


HASH = "$scrypt$ln=1,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alice", "name:hash"),
        (":x", "a name is empty"),
        ("alice:secret", "not hashed as we do"),
        (f"a,b:{HASH}", "no blanks, colons, commas"),
        (f"{'a' * 256}:{HASH}", "at most 255 bytes"),
        (f"alice:{HASH} speed=5", '"speed=5" is none of'),
        (f"alice:{HASH} connections=x", "is not a number"),
        (f"alice:{HASH} up=10M", '"M" is not a unit'),
        (f"alice:{HASH} up=1 up=2", "given twice"),
        (f"alice:{HASH}\nalice:{HASH}", "there already"),
    ],
)
def test_wrong_lines_are_named_and_hashes_are_not_shown(
    tmp_path: Path, line: str, said: str
) -> None:
    path = tmp_path / "users"
    path.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_users(path)
    (problem,) = caught.value.problems
    assert said in str(problem)
    assert (problem.file, problem.line) == (str(path), 4 if "\n" in line else 3)
    assert "$scrypt" not in str(problem)
    assert "secret" not in str(problem)


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_users(tmp_path / "none")
    big = tmp_path / "big"
    big.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(ConfigError, match="larger than"):
        read_users(big)
    with pytest.raises(QanatError, match="can't be written"):
        store_user(tmp_path / "no" / "folder", "alice", "x")
    with pytest.raises(QanatError, match="no blanks"):
        store_user(tmp_path / "users", "al ice", "x")
