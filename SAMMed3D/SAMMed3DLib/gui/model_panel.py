"""The Model section: which network, its terms, its room on the disk, where it runs; the chosen one is a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer

from .. import __version__
from ..signal import Signal
from ..torch_setup.device import DeviceReport, report_device
from ..torch_setup.install import Outcome, TorchInstaller, torchAvailable
from ..translation import tr as _
from ..weights.catalog import ModelEntry, ModelKind, WeightsError
from ..weights.store import BUNDLED, WeightsStore
from ..worker.requests import FunctionRequest, Progress, Result, model_download
from ..worker.thread import Client
from .state_view import Control, ViewWriter, sizeText
from .timers import Poll

_MODEL, _DEVICE, _PRECISION = "SAMMed3D/Model", "SAMMed3D/Device", "SAMMed3D/Precision"

_WATCH_MS = 2000
_CLOSE_SECONDS = 0.2


class ModelPanel:
    """Shows the store's models and acts on the chosen one.

    Attributes (signals):
        problem: (text) for the line at the top of the panel; "" takes it away.
        detectorChanged: () the detector of the thorough search has come or gone.

    ``cpuOnlyMayHelp``: PyTorch could not be installed, but its smaller build for the CPU may work.
    """

    def __init__(
        self, ui: Any, widget: qt.QWidget, session: Any, choice: ModelChoice, client: Client, installer: TorchInstaller
    ) -> None:
        self.problem, self.detectorChanged = Signal(), Signal()
        self.cpuOnlyMayHelp = False
        self._installer = installer
        self._ui, self._widget, self._session, self._choice, self._client = ui, widget, session, choice, client
        self._view = ViewWriter(ui)
        self._entries: list[ModelEntry] = []
        self._filling = False
        self._working = False  # a download or the reading of a file
        self._device: DeviceReport | None = None
        self._poll = Poll(client.poll, client.busyChanged, widget)
        client.progressed.connect(self._onProgress)
        self._watch = qt.QTimer(widget)
        self._watch.interval = _WATCH_MS
        self._watch.connect("timeout()", self._onWatch)
        ui.modelCombo.connect("currentIndexChanged(int)", self._onChosen)
        ui.modelSection.connect("contentsCollapsed(bool)", self._onCollapsed)
        self._buttons = [
            (ui.downloadButton, self._onDownload),
            (ui.modelCancelButton, self._onCancel),
            (ui.openModelButton, self._onOpen),
            (ui.removeModelButton, self._onRemove),
            (ui.copyDeviceButton, self._onCopyDevice),
            (ui.detectorDownloadButton, self._onDetectorDownload),
            (ui.detectorFileButton, self._onDetectorFile),
            (ui.detectorRemoveButton, self._onDetectorRemove),
        ]
        for button, slot in self._buttons:
            button.connect("clicked(bool)", slot)

    def enter(self) -> None:
        """From here on models that appear, of a training that ends for example, appear in the list."""
        self.refresh()
        self._watch.start()

    def exit(self) -> None:
        self._watch.stop()

    def close(self) -> None:
        self._client.close(_CLOSE_SECONDS)
        self._poll.close()
        self._client.progressed.disconnect(self._onProgress)
        self._watch.stop()
        self._watch.disconnect("timeout()", self._onWatch)
        self._ui.modelCombo.disconnect("currentIndexChanged(int)", self._onChosen)
        self._ui.modelSection.disconnect("contentsCollapsed(bool)", self._onCollapsed)
        for button, slot in self._buttons:
            button.disconnect("clicked(bool)", slot)

    def refresh(self) -> None:
        """Show the list and the chosen model as they are now."""
        self._entries = self._choice.store.entries()
        before = self.detector
        self._choice.refresh()
        chosen, combo = self._choice.entry, self._ui.modelCombo
        self._filling = True
        try:
            combo.clear()
            for entry in self._entries:
                combo.addItem(entry.title if entry.installed else self._absentTitle(entry), entry.name)
            combo.setCurrentIndex([entry.name for entry in self._entries].index(chosen.name))
        finally:
            self._filling = False
        detector = detectorView(self.detector, self._working)
        self._view.apply({**modelView(chosen, self._working), **deviceView(self._device, self._choice), **detector})
        if self.detector != before:
            self.detectorChanged.emit()

    @property
    def detector(self) -> ModelEntry:
        """The detector of the thorough search, as of the last refresh."""
        return self._choice.detectorEntry

    def choose(self, name: str) -> None:
        """Use a model of the store, by its name there; open nodules go on with it."""
        self._choice.choose(name)
        self._session.setModel()
        self.refresh()

    def download(self, name: str | None = None) -> None:
        """Fetch a model of the catalog (None: the chosen one), with progress; an earlier try is gone on with."""
        self._begin()
        wanted = self._choice.entry.name if name is None else name
        self._client.submit(model_download(self._choice.store, wanted), self._onModel)

    def addFile(self, path: str) -> None:
        """Put a checkpoint file on the list and choose it."""
        self._begin()
        store = self._choice.store
        self._client.submit(FunctionRequest(lambda report: store.add_file(path)), self._onAdded)

    def reportDevice(self) -> None:
        """Find out what the model runs on, in the background."""
        if self._choice.torchInstalled():
            device, precision = self._choice.device, self._choice.precision
            self._client.submit(FunctionRequest(lambda report: report_device(device, precision)), self._onDevice)

    def installTorch(self, cpuOnly: bool = False) -> None:
        """Install PyTorch, after asking; then go on as if it had always been there."""
        result = self._installer.install(cpuOnly=cpuOnly)
        self.cpuOnlyMayHelp = result.cpuOnlyMayHelp
        if result.outcome is not Outcome.READY:
            self.problem.emit(result.message)
            return
        self.problem.emit("")
        self._session.setModel()
        self.reportDevice()
        self._session.message.emit(result.message, False)

    @staticmethod
    def _absentTitle(entry: ModelEntry) -> str:
        if entry.kind is ModelKind.CATALOG:
            return _("{title} (download)").format(title=entry.title)
        return _("{title} (missing)").format(title=entry.title)

    def _begin(self) -> None:
        self.problem.emit("")
        self._working = True
        self._ui.modelProgressBar.maximum = 0
        self._ui.modelCancelButton.enabled = True
        self.refresh()

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onChosen(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._entries):
            self.choose(self._entries[index].name)

    def _onDownload(self, checked: bool = False) -> None:
        self.download()

    def _onCancel(self, checked: bool = False) -> None:
        self._ui.modelCancelButton.enabled = False
        self._client.cancel()

    def _onOpen(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(
            self._widget, _("Choose a checkpoint of SAM-Med3D or of this module"), "", _("Checkpoint (*.pth *.pt)")
        )
        if path:
            self.addFile(path)

    def _onDetectorDownload(self, checked: bool = False) -> None:
        self.download(self.detector.name)

    def _onDetectorFile(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(
            self._widget, _("Choose the weights of MONAI's lung nodule detector"), "", _("Weights (*.pt *.pth)")
        )
        if path:
            self._begin()
            store = self._choice.store
            self._client.submit(FunctionRequest(lambda report: store.add_detector(path)), self._onModel)

    def _onDetectorRemove(self, checked: bool = False) -> None:
        if self._remove(self.detector):
            self.refresh()

    def _onRemove(self, checked: bool = False) -> None:
        if self._remove(self._choice.entry):
            self.choose(self._choice.entry.name)

    def _remove(self, entry: ModelEntry) -> bool:
        """Takes a file away, after a question where it is deleted; False where the user says no."""
        question = _("Delete {title} from the disk? {size} become free.").format(
            title=entry.title, size=sizeText(entry.size_bytes)
        )
        if entry.kind is not ModelKind.FILE and not slicer.util.confirmOkCancelDisplay(question, parent=self._widget):
            return False
        try:
            self._choice.store.remove(entry.name)
        except WeightsError as error:
            self.problem.emit(str(error))
        return True

    def _onCopyDevice(self, checked: bool = False) -> None:
        version = f"{slicer.app.applicationName} {slicer.app.applicationVersion}, SAMMed3D {__version__}"
        details = "" if self._device is None else self._device.details
        slicer.app.clipboard().setText(f"{version}\n{details}\n")
        self._session.message.emit(_("The line is on the clipboard."), False)

    def _onCollapsed(self, collapsed: bool) -> None:
        if not collapsed and self._device is None:
            self.reportDevice()

    # -- what the worker answers -------------------------------------------------------------------------------------

    def _onProgress(self, progress: Progress) -> None:
        bar = self._ui.modelProgressBar
        bar.maximum = 1000 if progress.total else 0
        bar.value = 1000 * progress.done // progress.total if progress.total else 0
        bar.toolTip = progress.text

    def _onDevice(self, result: Result) -> None:
        if not result.cancelled:
            self._device = result.value
            self.refresh()

    def _onAdded(self, result: Result) -> None:
        self._onModel(result, choose=True)

    def _onModel(self, result: Result, choose: bool = False) -> None:
        self._working = False
        if result.error:
            self.problem.emit(result.error)
        elif result.value is not None and (choose or self._choice.entry.name == result.value.name):
            self.choose(result.value.name)  # unless another one was chosen during the download
        self.refresh()

    def _onWatch(self) -> None:
        if self._choice.store.refresh():
            self.refresh()


def deviceView(report: DeviceReport | None, choice: ModelChoice) -> dict[str, Control]:
    """The look of the device line; ``report`` None: nobody has asked yet."""
    if not choice.torchInstalled():
        text, why = _("PyTorch is not installed yet."), _("PyTorch is not installed yet.")
    elif report is None:
        text, why = _("Found out when the model is loaded."), _("Not known yet.")
    else:
        text, why = report.text, ""
    tip = _("Copy this line, with the versions of Slicer and of this module, for a question or a bug report.")
    return {"deviceLabel": Control(text=text), "copyDeviceButton": Control(not why, why or tip)}


def modelView(entry: ModelEntry, busy: bool) -> dict[str, Control]:
    """The look of the Model section for the chosen model."""
    wait = _("Wait for the current work, or cancel it.") if busy else ""
    downloadable = entry.kind is ModelKind.CATALOG and not entry.installed
    whyNot = wait or (
        ""
        if downloadable
        else _("This model needs no download.")
        if entry.installed
        else _("This model cannot be downloaded: its file is gone.")
    )
    keep = wait or (
        ""
        if entry.removable
        else _("The bundled model stays: it is part of the module.")
        if entry.kind is ModelKind.BUNDLED
        else _("There is nothing on this computer to remove.")
    )
    removeTip = _("Take it off the list. The file itself stays where it is.")
    if entry.kind is not ModelKind.FILE:
        removeTip = _("Delete its file; {size} become free.").format(size=sizeText(entry.size_bytes))
    size = sizeText(entry.size_bytes)
    return {
        "modelCombo": Control(enabled=not busy),
        "downloadButton": Control(
            not whyNot, whyNot or _("Download {title}, {size}.").format(title=entry.title, size=size)
        ),
        "openModelButton": Control(
            not busy, wait or _("Choose a checkpoint file on this computer. It stays where it is.")
        ),
        "removeModelButton": Control(not keep, keep or removeTip),
        "modelProgressBar": Control(visible=busy),
        "modelCancelButton": Control(visible=busy),
        "modelNoteLabel": Control(text=entry.note, visible=bool(entry.note)),
        "licenseLabel": Control(text=entry.license),
        "sizeLabel": Control(text=size if entry.installed else _("not here yet; needs {size}").format(size=size)),
        "locationEdit": Control(
            text=str(entry.path or ""), toolTip=str(entry.path or _("The file is not on this computer."))
        ),
    }


def detectorView(entry: ModelEntry, busy: bool) -> dict[str, Control]:
    """The look of the detector's row."""
    wait = _("Wait for the current work, or cancel it.") if busy else ""
    size = sizeText(entry.size_bytes)
    text = _("{title}, {license}, {size}") if entry.installed else _("{title}, {license}: not here yet, needs {size}")
    where = str(entry.path) if entry.installed else entry.source
    why = wait or (_("It is on this computer already.") if entry.installed else "")
    if not why and entry.kind is ModelKind.FILE:
        why = _("Its file is gone: choose it again, or remove it here to download it.")
    keep = wait or ("" if entry.removable else _("There is nothing on this computer to remove."))
    removeTip = _("Take it off the list. The file itself stays where it is.")
    if entry.kind is not ModelKind.FILE:
        removeTip = _("Delete its file; {size} become free.").format(size=size)
    return {
        "detectorLabel": Control(
            text=text.format(title=entry.title, license=entry.license, size=size), toolTip=f"{where}\n{entry.note}"
        ),
        "detectorDownloadButton": Control(
            not why, why or _("Download {title}, {size}.").format(title=entry.title, size=size)
        ),
        "detectorFileButton": Control(
            not busy, wait or _("Choose its file, models/model.pt of MONAI's bundle. It stays where it is.")
        ),
        "detectorRemoveButton": Control(not keep, keep or removeTip),
    }


def applicationStore() -> WeightsStore:
    """The store in the application's own data folder, which an update of the extension leaves alone."""
    place = qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation)
    return WeightsStore(Path(place) / "SAMMed3D")


class ModelChoice:
    """What the session asks about the model (its ModelProvider)."""

    def __init__(self, store: WeightsStore) -> None:
        self.store = store
        self._torchInstalled = False
        self._entry: ModelEntry | None = None
        self._detector: ModelEntry | None = None

    @property
    def entry(self) -> ModelEntry:
        """The chosen model; the bundled one where the chosen one is no longer on the list. As of the last refresh."""
        return self._entry or self.refresh()

    def refresh(self) -> ModelEntry:
        """Look at the files; the session asks for the chosen model far more often than they change."""
        try:
            self._entry = self.store.entry(str(slicer.app.userSettings().value(_MODEL) or BUNDLED))
        except WeightsError:
            self._entry = self.store.entry(BUNDLED)
        self._detector = self.store.detector()
        return self._entry

    @property
    def detectorEntry(self) -> ModelEntry:
        """The detector of the thorough search, as of the last refresh."""
        if self._detector is None:
            self._detector = self.store.detector()
        return self._detector

    @property
    def detector(self) -> Path | None:
        entry = self.detectorEntry
        return entry.path if entry.installed else None

    def choose(self, name: str) -> None:
        slicer.app.userSettings().setValue(_MODEL, name)
        self.refresh()

    @property
    def path(self) -> Path | None:
        entry = self.entry
        return entry.path if entry.installed else None

    @property
    def device(self) -> str:
        return str(slicer.app.userSettings().value(_DEVICE) or "auto")

    @property
    def precision(self) -> str:
        return str(slicer.app.userSettings().value(_PRECISION) or "auto")

    def torchInstalled(self) -> bool:
        """Looked up anew only as long as it is not there: the session asks often."""
        self._torchInstalled = self._torchInstalled or torchAvailable()
        return self._torchInstalled
