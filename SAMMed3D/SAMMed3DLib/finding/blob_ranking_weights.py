"""Weights of the ranking, made by ``python -m Research.ranking_fitting``.

20 scans; backgrounds left out in turn: recall of 428 nodules of 4-20 mm 0.699 before 50, 0.780 before 100, 0.832
before 200, 0.879 before 400, 0.928 before 800 false candidates.
"""

#: Of the measures: log blob, roundness, flatness, log radius, brightness,
#: lung within 4 mm, lung within 12 mm, coarse, median.
CENTERS = (
    -2.1568, 0.2006, 0.6486, 0.8391, 0.3090, 0.8629, 0.7202, 0.0958, 0.0628,
)
SCALES = (
    0.6594, 0.1860, 0.1834, 0.4473, 0.1703, 0.1865, 0.2096, 0.2944, 0.2426,
)

#: Of 1, the measures and their products.
WEIGHTS = (
    -4.0445, 0.9835, 1.6144, -0.1351, 1.6252, 1.6297, -0.9604, -0.8516, 1.2992, 1.0941, -0.3510, 0.5502, -0.0474,
    0.2873, 0.4577, 0.0764, -0.2343, -0.1230, -0.2270, 0.0585, 0.0116, -0.1888, -0.2271, -0.1201, 0.2532, 0.0595,
    0.0885, 0.0234, 0.1283, -0.0240, 0.0366, -0.0083, -0.0402, -0.0050, -0.1162, -0.6451, 0.2682, 0.1864, -0.0616,
    -0.2579, -0.4893, 0.5918, 0.2520, 0.0007, -0.1371, -2.5534, 1.4015, 0.1262, 0.2612, -0.4290, -0.0823, -0.1454,
    -0.4737, -0.3516, -0.1440,
)
