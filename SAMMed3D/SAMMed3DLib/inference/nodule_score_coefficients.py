"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 540 nodules (544 samples) and 1270 other places in 5 backgrounds: nodules of 3.5-32 mm painted into the
backgrounds that training may use, against what else is found there. Backgrounds left out in turn: sensitivity 0.61
at 0.5, 0.66 at 1, 0.70 at 2, 0.74 at 4, 0.77 at 8 false positives a scan.
"""

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response.
_LOOK_MEAN = (
    -0.6639, 1.9999, -0.4272, 0.4761, 0.2607, 3.1838, 1.0876, 0.2903, 1.7381, -1.7357, 0.9720, 0.0480, 0.1923, -0.6720,
)
_LOOK_SCALE = (
    1.1120, 0.5738, 0.4885, 0.1825, 0.1561, 0.2758, 0.4440, 0.1763, 1.0711, 1.0779, 0.4653, 0.1340, 0.2678, 3.9689,
)
_LOOK_WEIGHTS = (
    0.5983, 0.4493, 0.4065, 0.0189, -0.1156, 0.1078, -0.3728, -0.0709, -0.1520, -0.3061, -0.1334, 0.3350, 0.3623,
    1.1463, 0.1861, 0.0667, 0.1775, -0.0272, 0.0656, 0.1883,
)
OF_LOOK = (_LOOK_MEAN, _LOOK_SCALE, _LOOK_WEIGHTS, -4.4771)

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response, agreement, least agreement, iou around.
_CLICKED_MEAN = (
    -0.3055, 2.1235, -0.2429, 0.5067, 0.2860, 3.1348, 0.9868, 0.3097, 1.8343, -1.7777, 0.9288, 0.0791, 0.2434, -0.6720,
    2.8569, 2.6271, -0.1937,
)
_CLICKED_SCALE = (
    1.0118, 0.5496, 0.5230, 0.1974, 0.1729, 0.2891, 0.3783, 0.2295, 1.1273, 1.1245, 0.4550, 0.1881, 0.3081, 3.9689,
    0.5984, 0.7197, 0.9231,
)
_CLICKED_WEIGHTS = (
    0.4482, 0.3252, 0.3131, -0.0359, -0.0834, 0.1027, -0.3696, 0.0362, -0.1604, -0.1785, 0.0219, 0.2598, 0.2886, 0.8809,
    0.4763, 0.4325, 0.4809, 0.1014, 0.0735, 0.1254, 0.1077, -0.0349, 0.0020, 0.0729, 0.1579, 0.1319, 0.0893,
)
OF_CLICKED = (_CLICKED_MEAN, _CLICKED_SCALE, _CLICKED_WEIGHTS, -4.7488)

#: Where the blob filter was not asked.
USUAL_RESPONSE = -2.4774

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.2211
USUAL = 0.0698
