"""What must hold for every figure."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def assert_nothing_cut(figure: Figure) -> None:
    """All letters lie inside the figure, and no two lines of them on one another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    size = figure.get_size_inches() * figure.dpi
    texts = [*figure.texts, *(t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label))]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= size[0]
        assert box.y1 <= size[1]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
