"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 25 scans, 316 samples of nodules, 4432 of others: nodules of 3.5-25 mm painted into the backgrounds that
training may use, against everything else found there. Backgrounds left out in turn: sensitivity 0.52 at 0.5, 0.60
at 1, 0.60 at 2, 0.65 at 4, 0.67 at 8 false positives a scan. 20 of the scans were searched with an earlier ranking
of the candidates and one run of the command does not give these very figures.
"""

#: Of the basic inputs: iou, stability, diameter, elongation, slenderness, compactness, growth,
#: off_center, contrast, density, continued, outside, wall.
MEAN = (
    -0.2435, 1.8865, -0.5019, 0.5295, 0.3080, 3.0926, 1.1931, 0.3241, 1.9570, -1.4811, 0.9126, 0.0404, 0.1447,
)
SCALE = (
    0.6449, 0.5198, 0.4817, 0.2020, 0.1796, 0.3106, 0.4585, 0.1999, 1.0548, 1.0228, 0.4811, 0.1819, 0.2659,
)

#: Of the 13 standardized inputs and 36 squares and products.
WEIGHTS = (
    0.6501, 0.4695, 1.5075, 0.1455, -0.3763, 0.1635, -1.0133, 0.3670, 0.0793, -0.6468, -0.4790, 0.3022, 0.7344, 0.2377,
    0.1588, 0.3871, 0.1022, -0.0005, -0.2473, -0.2677, 0.1464, 0.3066, 0.3721, 0.2006, -0.0541, 0.0221, 0.0324, 0.0864,
    -0.2164, 0.0678, -0.2963, 0.0104, -0.4293, -0.4470, 0.0779, 0.0589, -0.0921, 0.0590, 0.0862, 0.1176, 0.0462, 0.1142,
    -0.4259, -0.1394, 0.1720, 0.0802, 0.2010, -0.3853, 0.0474,
)
INTERCEPT = -7.5440
RESPONSE_WEIGHT = 0.1997
USUAL_RESPONSE = 0.0852

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.6039
USUAL = 0.2355
