"""The list of models and everything that changes it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from SAMMed3DLib.model import build_model, save_checkpoint
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DLib.weights import store as weights_store
from SAMMed3DLib.weights.catalog import CATALOG, DETECTOR, CatalogModel, ModelKind, WeightsError
from SAMMed3DLib.weights.download import DownloadCancelled, DownloadError
from SAMMed3DLib.weights.store import WeightsStore, default_folder, read_architecture

from .file_server import drop_after


@pytest.fixture
def known(server, content) -> CatalogModel:
    """A model of the catalog that the local server has."""
    return CatalogModel(
        "turbo",
        "Turbo",
        server.url,
        "https://example.org/turbo",
        "Apache-2.0",
        len(content),
        hashlib.sha256(content).hexdigest(),
        "The general model.",
    )


def architecture(path: Path) -> str:
    """Stands in for loading a checkpoint: files that begin with "bad" are none."""
    if path.read_bytes().startswith(b"bad"):
        raise WeightsError(f"{path} is no checkpoint")
    return "nodule"


@pytest.fixture
def store(tmp_path, known) -> WeightsStore:
    return WeightsStore(tmp_path / "störe", (known,), architecture)


@pytest.fixture
def own_file(tmp_path) -> Path:
    path = tmp_path / "elsewhere" / "my model.pth"
    path.parent.mkdir()
    path.write_bytes(b"good")
    return path


def names(store: WeightsStore) -> list[str]:
    return [entry.name for entry in store.entries()]


def test_an_empty_store_lists_the_bundled_model_and_the_catalog(store) -> None:
    bundled, turbo = store.entries()
    assert (bundled.name, bundled.kind, bundled.path) == ("nodule", ModelKind.BUNDLED, default_checkpoint())
    assert bundled.installed and not bundled.removable
    assert bundled.size_bytes == default_checkpoint().stat().st_size
    assert (turbo.path, turbo.installed, turbo.removable, turbo.license) == (None, False, False, "Apache-2.0")
    assert "Verified by its SHA-256" in turbo.note
    assert not store.folder.exists(), "nothing is made before it is needed"
    assert store.disk_use() == 0
    assert store.checkpoint("nodule") == default_checkpoint()
    with pytest.raises(WeightsError, match="download it first"):
        store.checkpoint("turbo")
    with pytest.raises(WeightsError, match="nodule, turbo"):
        store.checkpoint("nodul")


def test_a_missing_bundled_model_says_so(store, monkeypatch) -> None:
    def missing() -> Path:
        raise FileNotFoundError("Install SAMMed3D again")

    monkeypatch.setattr(weights_store, "default_checkpoint", missing)
    assert not store.entry("nodule").installed
    with pytest.raises(WeightsError, match="Install SAMMed3D again"):
        store.checkpoint("nodule")


def test_a_download_appears_and_goes(store, content) -> None:
    entry = store.download("turbo")
    assert entry == store.entry("turbo")
    assert entry.installed and entry.removable
    assert store.checkpoint("turbo").read_bytes() == content
    assert store.disk_use() == entry.size_bytes == len(content)
    store.remove("turbo")
    assert not store.entry("turbo").installed
    assert store.disk_use() == 0
    with pytest.raises(WeightsError, match="not on this computer"):
        store.remove("turbo")


def test_an_unfinished_download_counts_and_can_be_removed(store, server, content) -> None:
    server.answers = [drop_after(200_000)]
    with pytest.raises(DownloadCancelled):
        store.download("turbo", lambda done, total: done < 200_000)
    entry = store.entry("turbo")
    assert not entry.installed and entry.removable
    assert "0 of 0 MB have come; Download goes on" in entry.note
    assert store.disk_use() == 200_000, "the beginning counts"
    store.remove("turbo")
    assert list(store.folder.iterdir()) == []


def test_where_no_hash_is_known_the_size_is_checked_and_the_entry_says_so(tmp_path, known, content) -> None:
    store = WeightsStore(tmp_path / "a", (replace(known, sha256=None),), architecture)
    assert "No SHA-256 of it is known: only its size" in store.entry("turbo").note
    store.download("turbo")
    other = WeightsStore(tmp_path / "b", (replace(known, sha256=None, size_bytes=5),), architecture)
    with pytest.raises(DownloadError, match="not the expected 5"):
        other.download("turbo")
    about = WeightsStore(tmp_path / "c", (replace(known, size_bytes=5),), architecture)
    assert about.download("turbo").size_bytes == len(content), "with a hash the size in the catalog is only about right"
    with pytest.raises(WeightsError, match="cannot be downloaded; what can is turbo"):
        store.download("nodule")


def test_a_chosen_file_is_remembered_not_copied(store, own_file) -> None:
    entry = store.add_file(own_file)
    assert (entry.name, entry.path, entry.kind) == ("my_model", own_file, ModelKind.FILE)
    assert "ask" in entry.license
    assert "nodule" in entry.note
    again = WeightsStore(store.folder, (), architecture)
    assert again.checkpoint("my_model") == own_file
    assert store.add_file(own_file).name == "my_model", "chosen twice, listed once"
    assert names(store) == ["nodule", "turbo", "my_model"]
    own_file.rename(own_file.with_name("other.pth"))
    assert not store.entry("my_model").installed
    with pytest.raises(WeightsError, match="put it back"):
        store.checkpoint("my_model")
    store.remove("my_model")
    assert names(store) == ["nodule", "turbo"]
    assert own_file.with_name("other.pth").exists(), "a file that is only remembered is never deleted"


def test_files_of_equal_name_are_told_apart(store, own_file, tmp_path) -> None:
    twin = tmp_path / "my model.pth"
    twin.write_bytes(b"good too")
    turbo = tmp_path / "turbo.pth"
    turbo.write_bytes(b"good as well")
    added = [store.add_file(file).name for file in (own_file, twin, turbo)]
    assert added == ["my_model", "my_model-2", "turbo-2"]


def test_a_file_known_by_its_hash_gets_its_license(store, own_file, content) -> None:
    own_file.write_bytes(content)
    entry = store.add_file(own_file)
    assert (entry.title, entry.license) == ("Turbo", "Apache-2.0")
    assert "known by its SHA-256" in entry.note


def test_files_of_the_store_are_not_listed_twice(store) -> None:
    assert store.add_file(default_checkpoint()).name == "nodule"
    path = store.download("turbo").path
    assert store.add_file(path).kind is ModelKind.CATALOG
    assert names(store) == ["nodule", "turbo"]


def test_what_is_no_checkpoint_is_refused(store, own_file, tmp_path) -> None:
    own_file.write_bytes(b"bad")
    with pytest.raises(WeightsError, match="is no checkpoint"):
        store.add_file(own_file)
    with pytest.raises(WeightsError, match="cannot be read"):
        store.add_file(tmp_path / "nowhere.pth")
    assert names(store) == ["nodule", "turbo"]


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[1]", '[{"name": "x"}]', '[{"name": 1, "path": 2, "architecture": 3, "sha256": 4}]']
)
def test_a_damaged_list_of_files_counts_as_empty(store, own_file, text) -> None:
    store.folder.mkdir()
    (store.folder / "files.json").write_text(text)
    assert names(store) == ["nodule", "turbo"]
    assert store.add_file(own_file).name == "my_model"


def test_trained_models_appear_by_themselves_newest_first(store) -> None:
    assert not store.refresh()
    first = store.finetuned_path("Lung: süd / run")
    assert first.name == "Lung_süd_run.pth"
    first.write_bytes(b"good")
    assert store.refresh() and not store.refresh()
    second = store.finetuned_path("Lung: süd / run")
    assert second.name == "Lung_süd_run-2.pth"
    second.with_name(".hidden.pth").write_bytes(b"being written")
    second.write_bytes(b"good")
    os.utime(first, (1, 1))
    assert store.refresh()
    assert names(store) == ["nodule", "turbo", "Lung_süd_run-2", "Lung_süd_run"]
    entry = store.entry("Lung_süd_run")
    assert entry.kind is ModelKind.FINETUNED and entry.removable and entry.path == first
    store.remove("Lung_süd_run")
    assert not first.exists()
    assert store.refresh()


def test_a_trained_model_may_have_any_name(store) -> None:
    for wanted in ("nodule", "turbo", "", "..", "con"):
        path = store.finetuned_path(wanted)
        assert path.parent == store.folder / "finetuned"
        path.write_bytes(b"good")
    (store.folder / "finetuned" / "nodule.pth").write_bytes(b"put there by hand")
    listed = names(store)
    assert len(listed) == len(set(listed))
    assert {"nodule-2", "turbo-2", "model", "model-2", "con_"} <= set(listed)


def test_a_checkpoint_is_adopted_whole_or_not_at_all(store, own_file) -> None:
    entry = store.adopt(own_file, "adopted")
    assert entry == store.entry("adopted")
    assert entry.path.read_bytes() == b"good"
    own_file.write_bytes(b"bad")
    with pytest.raises(WeightsError):
        store.adopt(own_file, "other")
    assert [file.name for file in entry.path.parent.iterdir()] == ["adopted.pth"]


def test_what_the_system_refuses_is_explained(store, own_file, tmp_path, monkeypatch) -> None:
    store.download("turbo")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(WeightsError, match="turbo.pth.*cannot be changed: Permission denied. Choose another model"):
        store.remove("turbo")
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    blocked = WeightsStore(tmp_path / "file", (), architecture)
    for change in (lambda: blocked.add_file(own_file), lambda: blocked.finetuned_path("x")):
        with pytest.raises(WeightsError, match="cannot be changed"):
            change()
    with pytest.raises(WeightsError, match="comes with SAMMed3D"):
        store.remove("nodule")


def test_real_checkpoints_are_read_and_real_rubbish_is_not(tmp_path) -> None:
    good = tmp_path / "good.pth"
    save_checkpoint(build_model("nodule"), good)
    store = WeightsStore(tmp_path / "store")
    assert "nodule" in store.add_file(good).note
    bad = tmp_path / "bad.pth"
    bad.write_text("<html>")
    with pytest.raises(WeightsError, match="web page"):
        read_architecture(bad)


def test_the_detector_is_checked_when_it_has_come_and_is_no_model_to_choose(tmp_path, server) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != server.content:
            raise WeightsError("no detector")

    about = replace(DETECTOR, url=server.url, size_bytes=1)
    store = WeightsStore(tmp_path / "store", (), detector=about, check=check)
    entry = store.detector()
    assert (entry.installed, entry.removable, entry.license) == (False, False, "Apache-2.0")
    assert about.name not in names(store) and "compared with the network" in entry.note
    entry = store.download(about.name)
    assert entry.installed and store.checkpoint(about.name) == entry.path and entry.size_bytes == len(server.content)
    store.remove(about.name)
    assert not store.detector().installed
    refusing = WeightsStore(tmp_path / "other", (), detector=about, check=lambda path: check(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"else")
    with pytest.raises(WeightsError, match="no detector"):
        refusing.download(about.name)
    assert not refusing.detector().installed, "nothing is left behind"


def test_a_file_can_be_the_detector_and_is_no_model_to_choose(tmp_path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != b"boxes":
            raise WeightsError("no detector")

    store = WeightsStore(tmp_path / "store", (), detector=DETECTOR, check=check)
    wrong, file = tmp_path / "wrong.pt", tmp_path / "model.pt"
    wrong.write_bytes(b"else")
    for path in (wrong, tmp_path / "absent.pt"):
        with pytest.raises(WeightsError):
            store.add_detector(path)
    assert not store.detector().installed and not store.folder.exists()
    file.write_bytes(b"boxes")
    before = names(store)
    entry = store.add_detector(file)
    assert entry == store.detector() and entry.path == file and entry.license == DETECTOR.license
    assert store.checkpoint(DETECTOR.name) == file and names(store) == before
    assert WeightsStore(store.folder, ()).detector().path == file, "it is remembered"
    file.unlink()
    gone = store.detector()
    assert not gone.installed and gone.removable and "gone" in gone.note and gone.size_bytes == DETECTOR.size_bytes
    with pytest.raises(WeightsError, match="gone"):
        store.checkpoint(DETECTOR.name)
    file.write_bytes(b"boxes")
    store.remove(DETECTOR.name)
    assert file.is_file() and not store.detector().removable


def test_the_catalog_is_complete() -> None:
    for model in (*CATALOG, DETECTOR):
        assert model.url.startswith("https://") and model.source.startswith("https://")
        assert model.license and model.note and model.size_bytes > 0
        assert model.sha256 is None or (len(model.sha256) == 64 and int(model.sha256, 16))
    assert [model.name for model in CATALOG] == ["sam_med3d_turbo"]
    weights = 4 * 100_509_617  # of vit_b_ori: float32
    assert weights <= CATALOG[0].size_bytes * 1.001


def test_each_system_has_its_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_folder() == tmp_path / ".local" / "share" / "SAMMed3D"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "SAMMed3D"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_folder() == tmp_path / "Library" / "Application Support" / "SAMMed3D"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert default_folder() == tmp_path / "local" / "SAMMed3D"


def test_listing_needs_neither_torch_nor_networking() -> None:
    code = (
        "import sys\nfrom SAMMed3DLib.weights.store import WeightsStore\n"
        "from SAMMed3DLib.worker import thread\nWeightsStore().entries()\n"
        "print(sorted({'torch', 'urllib.request', 'ssl'} & set(sys.modules)))"
    )
    source = Path(weights_store.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(source)},
    )
    assert run.stdout.strip() == "[]"
