"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 10 scans, 118 samples of nodules, 1247 of others: nodules of 3.5-25 mm painted into the backgrounds that
training may use, against everything else found there. Backgrounds left out in turn: sensitivity 0.53 at 0.5, 0.59
at 1, 0.67 at 2, 0.72 at 4, 0.78 at 8 false positives a scan.
"""

#: Of the basic inputs: iou, stability, diameter, elongation, slenderness, compactness, growth,
#: off_center, contrast, density, continued, outside, wall.
MEAN = (
    -0.0406, 2.0335, -0.3974, 0.5484, 0.3243, 3.0595, 1.0534, 0.2917, 2.1916, -1.3349, 0.8131, 0.0657, 0.1631,
)
SCALE = (
    0.5286, 0.4423, 0.4698, 0.2022, 0.1813, 0.2871, 0.3112, 0.1809, 1.0092, 0.9466, 0.4631, 0.2784, 0.3373,
)

#: Of the 13 standardized inputs and 36 squares and products.
WEIGHTS = (
    0.3683, 0.3142, 0.4699, -0.0779, -0.0930, 0.1630, -0.3095, 0.0417, -0.2874, -0.4372, -0.0433, 0.1495, 0.1668,
    0.1091, 0.1337, 0.2194, 0.0384, -0.0433, -0.1229, 0.0846, 0.1229, 0.2126, 0.2093, 0.0824, -0.1148, -0.1311, 0.1155,
    0.0559, -0.0429, 0.0443, -0.1073, -0.0888, -0.2619, -0.1294, -0.0071, -0.0595, -0.0920, -0.0571, -0.0511, 0.0704,
    0.0955, -0.0998, -0.2130, -0.0183, 0.0800, 0.1009, 0.2123, -0.2603, 0.1505,
)
INTERCEPT = -5.2726

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.6078
USUAL = 0.1222
