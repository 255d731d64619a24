"""Coefficients of the score, made by ``python -m Research.score_fitting``.

From 540 nodules (549 samples) and 1201 other places in 5 backgrounds: nodules of 3.5-32 mm painted into the
backgrounds that training may use, against what else is found there. Backgrounds left out in turn: sensitivity 0.64
at 0.5, 0.69 at 1, 0.72 at 2, 0.76 at 4, 0.79 at 8 false positives a scan.
"""

#: Of diameter, response, appearance.
_PLACE_MEAN = (
    -0.4570, -2.8775, -1.5283,
)
_PLACE_SCALE = (
    0.3535, 2.8904, 2.1688,
)
_PLACE_WEIGHTS = (
    -0.0834, 0.7212, 1.0048, -0.0334, 0.0754, -0.0443, 0.1848, 0.0800, 0.1669,
)
OF_PLACE = (_PLACE_MEAN, _PLACE_SCALE, _PLACE_WEIGHTS, -5.7398)

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response, appearance.
_LOOK_MEAN = (
    -0.6476, 2.0039, -0.4192, 0.4700, 0.2530, 3.1886, 1.0851, 0.2940, 1.7001, -1.7618, 0.9922, 0.0568, 0.2172, -0.7878,
    -0.1229,
)
_LOOK_SCALE = (
    1.1205, 0.5787, 0.5047, 0.1791, 0.1483, 0.2704, 0.4459, 0.1774, 1.0731, 1.0943, 0.4735, 0.1486, 0.2808, 4.1542,
    2.4277,
)
_LOOK_WEIGHTS = (
    0.4524, 0.3269, 0.3750, 0.0259, -0.0340, 0.0524, -0.2998, -0.1279, -0.1130, -0.1844, -0.0084, 0.2851, 0.2633,
    0.8532, 0.8111, 0.1160, 0.0553, 0.1170, 0.1154, -0.0590, 0.0409, 0.0583, 0.1237, 0.1426, 0.1251,
)
OF_LOOK = (_LOOK_MEAN, _LOOK_SCALE, _LOOK_WEIGHTS, -4.4922)

#: Of iou, stability, diameter, elongation, slenderness, compactness, growth, off_center, contrast, density,
#: continued, outside, wall, response, appearance, agreement, least agreement, iou around.
_CLICK_MEAN = (
    -0.2937, 2.1267, -0.2445, 0.4986, 0.2742, 3.1452, 0.9877, 0.3113, 1.7849, -1.8091, 0.9529, 0.0895, 0.2648, -0.7878,
    0.0256, 2.8919, 2.6666, -0.1974,
)
_CLICK_SCALE = (
    1.0158, 0.5528, 0.5421, 0.1950, 0.1648, 0.2909, 0.3783, 0.2283, 1.1196, 1.1387, 0.4610, 0.2037, 0.3158, 4.1542,
    2.7298, 0.5909, 0.7108, 0.9353,
)
_CLICK_WEIGHTS = (
    0.3514, 0.2387, 0.2896, -0.0321, -0.0049, 0.0658, -0.3119, -0.0072, -0.1053, -0.1063, 0.0634, 0.1719, 0.2206,
    0.7130, 0.8483, 0.3342, 0.3241, 0.3987, 0.0650, 0.0660, 0.0899, 0.0966, 0.0710, -0.0802, 0.0016, 0.0583, 0.0580,
    0.0999, 0.1203, 0.0998, 0.1399, 0.0869, 0.0541,
)
OF_CLICK = (_CLICK_MEAN, _CLICK_SCALE, _CLICK_WEIGHTS, -4.6423)

#: Where the blob filter or the classifier was not asked.
USUAL_RESPONSE = -2.6960
USUAL_APPEARANCE = -1.2714

#: Scores with 0.5 and 3 false positives a scan in backgrounds left out of the fit.
FEW = 0.2254
USUAL = 0.0768
