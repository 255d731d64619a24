"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.

From 400 nodules (377 samples) and 500 other places in 5 backgrounds: nodules of 3.5-20 mm painted into the
backgrounds that training may use, against what else is found there. Backgrounds left out in turn: sensitivity 0.58
at 0.5, 0.59 at 1, 0.64 at 2, 0.71 at 4, 0.74 at 8 false positives a scan.
"""

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response.
_LOOK_MEAN = (
    0.0313, 2.0983, -0.3598, 0.4875, 0.2727, 3.1690, 1.0380, 0.2808, 1.7563, -1.8280, 0.8953, 0.0577, 0.2161, 0.6041,
)
_LOOK_SCALE = (
    0.7542, 0.6151, 0.4514, 0.1924, 0.1636, 0.2891, 0.4721, 0.1685, 1.0527, 1.0686, 0.4735, 0.1423, 0.2700, 3.9559,
)
_LOOK_WEIGHTS = (
    0.5079, 0.4464, 0.3371, -0.0246, -0.0908, 0.2159, -0.3801, -0.1743, -0.1565, -0.2949, -0.1850, 0.3247, 0.3459,
    1.0166, 0.1444, 0.0569, 0.1122, -0.0528, 0.0451, 0.1452,
)
OF_LOOK = (_LOOK_MEAN, _LOOK_SCALE, _LOOK_WEIGHTS, -3.1289)

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response, agreement, least agreement, iou around.
_CLICKED_MEAN = (
    0.2174, 2.1939, -0.2096, 0.5162, 0.2913, 3.1168, 0.9635, 0.3064, 1.8037, -1.8983, 0.8665, 0.0902, 0.2612, 0.6041,
    3.0291, 2.8237, 0.2597,
)
_CLICKED_SCALE = (
    0.7091, 0.5959, 0.4765, 0.2128, 0.1790, 0.3056, 0.4223, 0.2121, 1.0728, 1.0908, 0.4690, 0.2047, 0.3062, 3.9559,
    0.5793, 0.7121, 0.6622,
)
_CLICKED_WEIGHTS = (
    0.3588, 0.2640, 0.2426, -0.1106, -0.0697, 0.1583, -0.2722, -0.1057, -0.1726, -0.2028, -0.0124, 0.2195, 0.2509,
    0.8035, 0.4941, 0.4575, 0.4157, 0.0899, 0.0471, 0.0887, 0.1078, -0.0764, 0.0003, 0.0436, 0.1254, 0.0914, 0.0888,
)
OF_CLICKED = (_CLICKED_MEAN, _CLICKED_SCALE, _CLICKED_WEIGHTS, -3.2406)

#: Where the blob filter was not asked.
USUAL_RESPONSE = -1.4354

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.2311
USUAL = 0.1043
