"""Ring C: a SIMULATION of Slicer's Python GUI layer (PythonQt, ctk, qMRML and qSlicer classes) on PySide6.

What is real: Qt's widgets (Qt 6, offscreen), the MRML scene, logics and displayable managers of ``slicer-core``,
``slicer.util``. What is simulated: PythonQt's rules for attributes, signals and constructors, the ctk and qMRML
widgets, the application with its modules and layout, ``ScriptedLoadableModule`` and ``parameterNodeWrapper``.

The simulation is strict. contract.json lists, from the headers, what PythonQt would show of each class; a class,
property, method, enum value or signal signature that is not listed is refused, so is a method called on a property
(``button.text()``), a keyword argument, a new attribute on a C++ object and a file dialog nobody answers. Slots that
raise are collected in :mod:`standin.failures`. Compared with a real Slicer 5.13 (80 facts of attributes, signals, node
selectors and sliders), it differs where it is stricter: a number is no text, a wrong signal raises instead of
printing, values of ``qt.Qt`` have no scope, QThread is refused. Passing here is no proof that a module works in
Slicer; failing here is a good sign that it does not.
"""
