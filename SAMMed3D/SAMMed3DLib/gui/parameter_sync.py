"""The module's parameter node and the session follow each other: what the scene keeps, and what is being worked on."""

from __future__ import annotations

from typing import Any


class ParameterSync:
    """Hands the user's choices to the session, and nodes that the session made back to the selectors."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._parameters: Any = None
        self._seen: tuple = (None, None, None)
        self._options: tuple = (None, None)
        self._look: tuple[float, float] | None = None
        self._busy = False
        session.documentChanged.connect(self.pull)

    def close(self) -> None:
        self._session.documentChanged.disconnect(self.pull)
        self._parameters = None

    def setParameters(self, parameters: Any) -> None:
        """Another parameter node, of a scene just loaded for example; None between scenes."""
        self._parameters = parameters
        if parameters is not None:
            self._seen, self._options, self._look = (None, None, None), (None, None), None
            self.push()

    def push(self) -> None:
        """From the parameter node to the session. Called whenever the node was modified."""
        parameters, session = self._parameters, self._session
        if parameters is None or self._busy:
            return
        self._busy = True
        try:
            wanted = (parameters.inputVolume, parameters.segmentation, parameters.prompts)
            volume, segmentation, prompts = wanted
            seen, self._seen = self._seen, wanted
            if volume is not seen[0]:
                session.setVolume(volume)
                session.showVolume(everywhere=False)
            if segmentation is not seen[1] and segmentation is not session.segmentationNode:
                session.setSegmentation(segmentation)
            if prompts is not seen[2] and prompts is not session.promptsNode:
                session.setPrompts(prompts)
            session.options.everyClickIsNew = parameters.everyClickIsNew
            session.options.doNotOverlap = parameters.doNotOverlap
            session.options.selectsInside = parameters.clickSelects
            session.options.zoomsIn = parameters.zoomToNodule
            look = (parameters.outlineWidth, parameters.fillOpacity)
            if self._look not in (None, look):
                session.setLook(*look)
            self._look = look
            session.options.outlineWidth, session.options.fillOpacity = look
            if session.options.showsMeasure != parameters.showMeasure:
                session.options.showsMeasure = parameters.showMeasure
                session.showMeasure()
            options = (parameters.show3d, parameters.sensitivity)
            before, self._options = self._options, options
            if options[0] != before[0]:
                session.review.show3d(options[0])
            if options[1] != before[1]:
                session.finding.setSensitivity(options[1])
        finally:
            self._busy = False
        self.pull()

    def pull(self) -> None:
        """From the session to the parameter node: nodes that were found, made or deleted."""
        parameters, session = self._parameters, self._session
        if parameters is None or self._busy:
            return
        self._busy = True
        try:
            nodes = (session.volumeNode, session.segmentationNode, session.promptsNode)
            for name, node in zip(("inputVolume", "segmentation", "prompts"), nodes, strict=True):
                if getattr(parameters, name) is not node:
                    setattr(parameters, name, node)
            self._seen = nodes
        finally:
            self._busy = False
