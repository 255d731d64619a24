"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 480 nodules (514 samples) and 500 other places in 5 backgrounds: nodules of 3.5-32 mm painted into the
backgrounds that training may use, against what else is found there. Backgrounds left out in turn: sensitivity 0.62
at 0.5, 0.64 at 1, 0.68 at 2, 0.72 at 4, 0.76 at 8 false positives a scan.
"""

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response.
_LOOK_MEAN = (
    0.0516, 2.1122, -0.2918, 0.4952, 0.2712, 3.1573, 1.0269, 0.2802, 1.7288, -1.8468, 0.9332, 0.0640, 0.2303, 0.8059,
)
_LOOK_SCALE = (
    0.7788, 0.6337, 0.5248, 0.1941, 0.1611, 0.2895, 0.4770, 0.1697, 1.0833, 1.0864, 0.4868, 0.1504, 0.2801, 4.1321,
)
_LOOK_WEIGHTS = (
    0.5024, 0.4345, 0.3970, 0.0287, -0.1173, 0.1551, -0.3829, -0.1321, -0.1681, -0.2779, -0.1103, 0.3074, 0.3084,
    1.0146, 0.1590, 0.0542, 0.1147, 0.0101, 0.0278, 0.1302,
)
OF_LOOK = (_LOOK_MEAN, _LOOK_SCALE, _LOOK_WEIGHTS, -2.9925)

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response, agreement, least agreement, iou around.
_CLICKED_MEAN = (
    0.2735, 2.2479, -0.0687, 0.5232, 0.2919, 3.1024, 0.9232, 0.3450, 1.8274, -1.9027, 0.8772, 0.1005, 0.2854, 0.8059,
    3.0735, 2.8739, 0.3420,
)
_CLICKED_SCALE = (
    0.7157, 0.6056, 0.5770, 0.2107, 0.1779, 0.3035, 0.4204, 0.2628, 1.1168, 1.1197, 0.4685, 0.2143, 0.3148, 4.1321,
    0.5850, 0.7175, 0.6719,
)
_CLICKED_WEIGHTS = (
    0.3658, 0.2803, 0.3665, -0.0900, -0.0824, 0.1084, -0.2916, 0.0313, -0.1555, -0.1949, 0.0017, 0.1799, 0.2552, 0.7944,
    0.4818, 0.4634, 0.4820, 0.0887, 0.0319, 0.0729, 0.1124, -0.0010, -0.0420, 0.0151, 0.1138, 0.0747, 0.0978,
)
OF_CLICKED = (_CLICKED_MEAN, _CLICKED_SCALE, _CLICKED_WEIGHTS, -2.9443)

#: Where the blob filter was not asked.
USUAL_RESPONSE = -1.4340

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.2114
USUAL = 0.1015
