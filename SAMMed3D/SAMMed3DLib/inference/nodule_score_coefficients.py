"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 20 scans, 238 samples of nodules, 2645 of others: nodules of 3.5-25 mm painted into the backgrounds that
training may use, against everything else found there. Backgrounds left out in turn: sensitivity 0.62 at 0.5, 0.72
at 1, 0.77 at 2, 0.78 at 4, 0.82 at 8 false positives a scan.
"""

#: Of the basic inputs: iou, stability, diameter, elongation, slenderness, compactness, growth,
#: off_center, contrast, density, continued, outside, wall.
MEAN = (
    -0.0538, 2.0249, -0.4292, 0.5384, 0.3187, 3.0756, 1.0640, 0.2926, 2.1445, -1.3664, 0.8166, 0.0517, 0.1486,
)
SCALE = (
    0.5407, 0.4503, 0.4650, 0.2020, 0.1838, 0.2930, 0.3207, 0.1810, 0.9808, 0.9369, 0.4535, 0.2187, 0.2901,
)

#: Of the 13 standardized inputs and 36 squares and products.
WEIGHTS = (
    0.3237, 0.2945, 0.7246, -0.0211, -0.2671, 0.1354, -0.4595, -0.0491, -0.2367, -0.5461, -0.1423, 0.2463, 0.3124,
    0.1528, 0.1184, 0.1827, 0.0364, 0.0054, -0.1601, 0.0446, 0.0748, 0.2561, 0.2897, 0.0666, -0.1020, -0.0459, 0.1354,
    0.0912, -0.0230, 0.0753, -0.0186, -0.0712, -0.1463, -0.2988, 0.1057, 0.0457, -0.1195, -0.0223, 0.1117, 0.0057,
    0.1257, -0.0360, -0.1750, -0.1036, 0.2143, -0.0112, 0.3060, -0.3404, 0.1505,
)
INTERCEPT = -5.7699

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.3868
USUAL = 0.0907
