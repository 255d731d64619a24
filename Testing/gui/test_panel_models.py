"""The Model section: choosing, adding and removing checkpoints, downloading, the device line."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

BUNDLED = Path(__file__).resolve().parents[2] / "SAMMed3D" / "Resources" / "Models" / "sammed3d_nodule.pth"


@pytest.fixture
def opened(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """The module is open, its store is an empty folder."""
    import qt

    from standin import pythonqt

    place = lambda *_: str(tmp_path / "AppData")  # noqa: E731
    monkeypatch.setitem(pythonqt.replacements, ("QStandardPaths", "writableLocation"), place)
    assert qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation).endswith("AppData")
    user.load_volume()
    user.open()
    user.ui.modelSection.collapsed = False
    _idle(user)
    return user


def _idle(user: User) -> None:
    user.host.process(0.05)
    user.host.wait(lambda: not user.widget.panel.models._client.isBusy)
    user.settle()


def _titles(user: User) -> list[str]:
    return [user.ui.modelCombo.itemText(index) for index in range(user.ui.modelCombo.count)]


def test_the_bundled_model_is_described(opened: User) -> None:
    assert opened.ui.modelCombo.currentIndex == 0
    assert "MB" in opened.ui.sizeLabel.text and opened.ui.licenseLabel.text
    assert opened.ui.locationEdit.text.endswith(".pth") and opened.ui.locationEdit.readOnly
    assert not opened.ui.removeModelButton.enabled and "bundled" in opened.ui.removeModelButton.toolTip.lower()
    assert not opened.ui.downloadButton.enabled and opened.ui.downloadButton.toolTip


def test_any_checkpoint_file_can_be_used_and_taken_off_the_list(opened: User, tmp_path: Path) -> None:
    from standin import qt_module

    file = tmp_path / "Müllers model.pth"
    shutil.copyfile(BUNDLED, file)
    before = _titles(opened)
    qt_module.file_answers.append(str(file))
    opened.ui.openModelButton.click()
    _idle(opened)
    assert len(_titles(opened)) == len(before) + 1
    assert opened.ui.locationEdit.text == str(file)
    assert opened.engine.asked("LoadModel")[-1].path == str(file)
    qt_module.box_answers += _yes()
    opened.ui.removeModelButton.click()
    _idle(opened)
    qt_module.box_answers.clear()
    assert _titles(opened) == before and file.is_file()
    assert opened.engine.asked("LoadModel")[-1].path != str(file)


def _yes() -> list[int]:
    import qt

    return [qt.QMessageBox.Ok]


def test_a_file_that_is_no_checkpoint_is_refused_in_words(opened: User, tmp_path: Path) -> None:
    from standin import qt_module

    file = tmp_path / "text.pth"
    file.write_text("no checkpoint")
    before = _titles(opened)
    qt_module.file_answers.append(str(file))
    opened.ui.openModelButton.click()
    _idle(opened)
    assert _titles(opened) == before
    assert opened.ui.setupFrame.visible and "text.pth" in opened.ui.setupLabel.text
    qt_module.file_answers.append("")
    opened.ui.openModelButton.click()
    assert _titles(opened) == before


def test_fine_tuned_models_appear_by_themselves(opened: User, tmp_path: Path) -> None:
    from SAMMed3DLib.weights.store import FINETUNED_FOLDER

    before = _titles(opened)
    folder = opened.widget.panel.models._choice.store.folder / FINETUNED_FOLDER
    folder.mkdir(parents=True)
    shutil.copyfile(BUNDLED, folder / "hospital.pth")
    opened.host.wait(lambda: len(_titles(opened)) > len(before))
    assert any("hospital" in title for title in _titles(opened))


def test_a_failed_download_says_what_to_do_and_can_be_tried_again(
    opened: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is not touched: the store's download fails as an offline machine's does."""
    from SAMMed3DLib.weights.catalog import WeightsError
    from SAMMed3DLib.weights.store import WeightsStore

    def offline(self: object, *arguments: object, **options: object) -> None:
        raise WeightsError("There is no connection to example.org. Download the file elsewhere and open it.")

    monkeypatch.setattr(WeightsStore, "download", offline)
    absent = next(index for index, title in enumerate(_titles(opened)) if "download" in title)
    opened.ui.modelCombo.setCurrentIndex(absent)
    opened.settle()
    assert opened.ui.downloadButton.enabled and "MB" in opened.ui.downloadButton.toolTip
    opened.ui.downloadButton.click()
    _idle(opened)
    assert "no connection" in opened.ui.setupLabel.text
    assert opened.ui.downloadButton.enabled and not opened.ui.modelProgressBar.visible


def test_the_thorough_search_needs_its_detector_and_says_where_it_comes_from(
    opened: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMMed3DLib.weights.catalog import WeightsError
    from standin import qt_module

    def check(path: Path) -> None:
        if path.read_bytes() != b"boxes":
            raise WeightsError(f"{path.name} is no detector")

    ui = opened.ui
    monkeypatch.setattr(opened.widget.panel.models._choice.store, "_check", check)
    assert not ui.thoroughCheckBox.enabled and not ui.thoroughCheckBox.checked and ui.thoroughLabel.visible
    for said in ("84 MB", "Apache-2.0", "not on this computer"):
        assert said in ui.thoroughLabel.text
    for said in ("huggingface.co", "models/model.pt", "LIDC scans were in its training", "84 MB", "Apache-2.0"):
        assert said in ui.thoroughCheckBox.toolTip
    ui.modelSection.collapsed = True
    ui.thoroughLabel._qt.linkActivated.emit("detector")
    assert not ui.modelSection.collapsed and ui.detectorDownloadButton.enabled
    assert not ui.detectorRemoveButton.enabled and "84 MB" in ui.detectorDownloadButton.toolTip

    file = tmp_path / "model.pt"
    file.write_bytes(b"else")
    for _content in (b"else", b"boxes"):
        file.write_bytes(_content)
        qt_module.file_answers.append(str(file))
        ui.detectorFileButton.click()
        _idle(opened)
        assert ui.thoroughCheckBox.enabled == (_content == b"boxes")
        assert ("is no detector" in ui.setupLabel.text) == (_content == b"else") or not ui.setupFrame.visible
    assert not ui.thoroughLabel.visible and "LIDC" in ui.thoroughCheckBox.toolTip
    assert not ui.detectorDownloadButton.enabled and ui.modelCombo.currentIndex == 0, "no model to choose"
    ui.segmentAllButton.click()
    opened.settle()
    ui.thoroughCheckBox.click()
    ui.segmentAllButton.click()
    opened.settle()
    assert [one.detector for one in opened.engine.asked("Generate")] == [None, str(file)]

    ui.detectorRemoveButton.click()
    _idle(opened)
    assert file.is_file() and not ui.thoroughCheckBox.enabled and not ui.thoroughCheckBox.checked
    ui.segmentAllButton.click()
    opened.settle()
    assert opened.engine.asked("Generate")[-1].detector is None


def test_the_device_line_can_be_copied(opened: User) -> None:
    import slicer

    opened.host.wait(lambda: "torch" in opened.ui.deviceLabel.text.lower())
    opened.ui.copyDeviceButton.click()
    text = slicer.app.clipboard().text()
    assert "SAMMed3D" in text and "Slicer" in text and "torch" in text.lower()


def test_changing_the_model_keeps_the_nodules(opened: User, tmp_path: Path) -> None:
    from standin import qt_module

    opened.ui.addNoduleButton.click()
    opened.click_at((5.0, -4.0, 3.0))
    (segment,) = opened.ids()
    before = opened.mask(segment)
    file = tmp_path / "other.pth"
    shutil.copyfile(BUNDLED, file)
    qt_module.file_answers.append(str(file))
    opened.ui.openModelButton.click()
    _idle(opened)
    assert opened.ids() == [segment] and (opened.mask(segment) == before).all()
    if not opened.widget.clicks.armed:
        opened.ui.addModeButton.click()
    opened.click_at((9.0, -4.0, 3.0))
    assert opened.ids() == [segment] and opened.mask(segment).sum() > before.sum()


def test_a_model_adopted_in_another_module_is_used_at_once_and_the_nodules_stay(opened: User) -> None:
    opened.ui.addNoduleButton.click()
    opened.click_at((5.0, -4.0, 3.0))
    (segment,) = opened.ids()
    before = opened.mask(segment)
    opened.host.select(None)
    store = opened.widget.panel.models._choice.store
    entry = store.adopt(BUNDLED, "from the training")
    opened.widget.useModel(entry.name)
    opened.settle()
    assert opened.engine.asked("LoadModel")[-1].path == str(entry.path)
    assert opened.ids() == [segment] and (opened.mask(segment) == before).all()
    opened.open()
    assert opened.ui.modelCombo.currentText == entry.title
    opened.ui.addModeButton.click()
    opened.click_at((9.0, -4.0, 3.0))
    assert opened.mask(segment).sum() > before.sum()


def test_a_download_is_canceled_and_gone_on_with(opened: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server on this computer, whose line stalls in the middle."""
    from weights.file_server import FileServer, stall_after

    server = FileServer(BUNDLED.read_bytes())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = opened.widget.panel.models._choice.store
    digest = hashlib.sha256(server.content).hexdigest()
    store._catalog = (
        dataclasses.replace(store._catalog[0], url=server.url, size_bytes=len(server.content), sha256=digest),
    )
    half = len(server.content) // 2
    server.answers.append(stall_after(half))
    try:
        opened.ui.modelCombo.setCurrentIndex(1)
        opened.ui.downloadButton.click()
        bar = opened.ui.modelProgressBar
        opened.host.wait(lambda: bar.maximum == 1000 and bar.value > 400)
        assert bar.visible and opened.ui.modelCancelButton.enabled and not opened.ui.modelCombo.enabled
        opened.ui.modelCancelButton.click()
        server.stalled.set()
        _idle(opened)
        assert not bar.visible and "Download goes on from there" in opened.ui.modelNoteLabel.text
        opened.ui.downloadButton.click()
        _idle(opened)
        assert server.ranges[0] is None and server.ranges[-1].startswith("bytes=")
        assert "Verified by its SHA-256" in opened.ui.modelNoteLabel.text and "MB" in opened.ui.sizeLabel.text
        assert opened.engine.asked("LoadModel")[-1].path == opened.ui.locationEdit.text
        assert Path(opened.ui.locationEdit.text).read_bytes() == server.content
    finally:
        server.stalled.set()
        server.shutdown()
        server.server_close()
