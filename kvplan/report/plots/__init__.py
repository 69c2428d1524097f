"""Charts drawn as pictures: matplotlib's Figure with its Agg and SVG canvases, and no window."""
