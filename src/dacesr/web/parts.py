"""The parts of the web page, and which of them change when others are used."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from dacesr.formats import FORMATS
from dacesr.serving.wishes import Refusal
from dacesr.web import looks
from dacesr.web.desk import Desk
from dacesr.web.visits import Result
from dacesr.web.work import Step, wish_of

_SIZES = {"×2": 2.0, "×4": 4.0}
_WIDTH, _HEIGHT = "Width", "Height"
_SAME = "same as the picture"
_WITH_QUALITY = ("jpeg", "webp", "avif")
_ENDINGS = {format.extensions[0].lstrip("."): name for name, format in FORMATS.items() if name in (
    "png", "jpeg", "webp", "tiff", "avif")}  # fmt: skip
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}

Changes = dict[Any, Any]


class Parts:
    """The page, laid out within gradio's Blocks, and its events."""

    def __init__(self, desk: Desk) -> None:
        """Lay it out; to be called within Blocks."""
        self._desk = desk
        gr.HTML(looks.HEADER, js_on_load=None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._lay_out_wishes()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_results()
        self._connect()

    # --- what is where

    def _lay_out_wishes(self) -> None:
        models = list(self._desk.service.models)
        self.pictures = gr.File(
            label="Pictures: drop, paste or click to choose", file_count="multiple", height=170, elem_id="pictures"
        )
        self.examples = gr.HTML(looks.example_buttons(), js_on_load=looks.EXAMPLES_JS)
        self.model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
        with gr.Row():
            self.size = gr.Radio([*_SIZES, _WIDTH, _HEIGHT], value="×4", label="Size")
            self.pixels = gr.Number(1920, label="Pixels", minimum=1, precision=0, visible=False, min_width=110)
        strength = self._desk.service.upscaler(models[0]).strength
        self.strength = gr.Slider(
            0,
            1,
            value=0.5 if strength is None else strength,
            step=0.05,
            label="Strength",
            info="0 faithful to the picture, 1 crisp with new detail",
            visible=strength is not None,
        )
        with gr.Row():
            self.start = gr.Button("Upscale", variant="primary", elem_id="start")
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        with gr.Accordion("Format and metadata", open=False):
            self.format = gr.Dropdown([_SAME, *_ENDINGS], value=_SAME, label="Format")
            self.quality = gr.Slider(
                0, 100, value=0, step=1, label="Quality", info="0: what suits the format", visible=False
            )
            self.strip = gr.Checkbox(False, label="Strip metadata (the colour profile stays)")

    def _lay_out_results(self) -> None:
        self.growing = gr.HTML(looks.EMPTY, js_on_load=None, elem_id="growing")
        self.slider = gr.ImageSlider(
            label="Before and after",
            interactive=False,
            visible=False,
            buttons=["fullscreen"],
            max_height=720,
            elem_id="slider",
        )
        self.picker = gr.Dropdown([], label="Show", visible=False, elem_id="picker")
        self.progress = gr.HTML(visible=False, js_on_load=None, elem_id="progress")
        self.failures = gr.HTML(visible=False, js_on_load=None, elem_id="failures")
        self.summary = gr.HTML(visible=False, js_on_load=None, elem_id="summary")
        self.downloads = gr.File(
            label="Download", interactive=False, visible=False, file_count="multiple", elem_id="downloads"
        )
        self.zip = gr.DownloadButton("Download all as one zip", visible=False, elem_id="zip")
        self.inspection = gr.HTML(visible=False, js_on_load=None)
        self.advice = gr.State(None)
        self.follow = gr.Button("Use this advice", size="sm", visible=False)

    def _connect(self) -> None:
        raw: dict[str, Any] = {**_PRIVATE, "preprocess": False}
        self.pictures.change(self.on_pictures, [self.pictures], [self.inspection, self.follow, self.advice], **raw)
        self.examples.click(self.on_example, None, [self.pictures], **_PRIVATE)
        self.follow.click(self.on_advice, [self.advice], [self.model, self.strength], **_PRIVATE)
        self.model.input(self.on_model, [self.model], [self.strength], **raw)
        self.size.change(self.on_size, [self.size], [self.pixels], **raw)
        self.format.change(self.on_format, [self.format], [self.quality], **raw)
        wishes = [
            self.pictures,
            self.model,
            self.size,
            self.pixels,
            self.strength,
            self.format,
            self.quality,
            self.strip,
        ]
        shown = [
            *(self.start, self.stop, self.growing, self.slider, self.picker, self.progress, self.failures),
            *(self.summary, self.downloads, self.zip),
        ]
        self.start.click(self.on_start, wishes, shown, trigger_mode="once", **raw)
        self.stop.click(self.on_stop, None, None, **_PRIVATE)
        self.picker.input(self.on_picker, [self.picker], [self.slider], **raw)

    # --- what happens

    async def on_pictures(self, files: Any, request: gr.Request) -> AsyncIterator[Changes]:
        """Pictures came or went: inspect the first."""
        hidden = {self.follow: gr.update(visible=False), self.advice: None}
        try:
            uploads = self._desk.arrived(files, request)
            if not uploads:
                yield {self.inspection: gr.update(visible=False), **hidden}
                return
            first = uploads[0]
            yield {self.inspection: gr.update(value=looks.note(f"Looking at {first.name}"), visible=True), **hidden}
            found = await self._desk.inspect(first)
        except Refusal as refusal:
            yield {self.inspection: gr.update(value=looks.note(str(refusal)), visible=True), **hidden}
            return
        model = self._desk.model_for(found.advice.model)
        yield {
            self.inspection: gr.update(value=looks.inspection(found, first.name), visible=True),
            self.follow: gr.update(visible=model is not None),
            self.advice: (model, found.advice.strength),
        }

    async def on_example(self, event: gr.EventData, request: gr.Request) -> list[str]:
        """An example is to be tried."""
        number = event._data.get("number") if isinstance(event._data, dict) else None
        try:
            return [await self._desk.example(number if isinstance(number, int) else 0, request)]
        except Refusal as refusal:
            raise _error(refusal) from refusal

    async def on_advice(self, advice: tuple[str, float | None] | None) -> Changes:
        """Set model and strength as advised."""
        model, strength = advice or (None, None)
        if model is None:
            return {self.model: gr.skip()}
        return {self.model: model, self.strength: _slider(self._strength(model), strength)}

    async def on_model(self, model: Any) -> Changes:
        """Another model: it may have a strength or not."""
        return {self.strength: _slider(self._strength(model), None)}

    def _strength(self, model: Any) -> float | None:
        try:
            return self._desk.strength(model if isinstance(model, str) else None)
        except Refusal as refusal:
            raise _error(refusal) from refusal

    async def on_size(self, size: Any) -> Changes:
        """A width or a height needs a number."""
        return {self.pixels: gr.update(visible=size in (_WIDTH, _HEIGHT))}

    async def on_format(self, format: Any) -> Changes:
        """Some formats have a quality."""
        return {self.quality: gr.update(visible=_ENDINGS.get(str(format)) in _WITH_QUALITY)}

    async def on_stop(self, request: gr.Request) -> None:
        """Stop at the next tile."""
        self._desk.stop(request)

    async def on_picker(self, name: Any, request: gr.Request) -> Changes:
        """Another result is to be compared."""
        results = self._desk.visit(request).results
        chosen = dict(zip(_labels(results), results, strict=True)).get(str(name))
        return {self.slider: gr.skip() if chosen is None else (str(chosen.before), str(chosen.after))}

    async def on_start(
        self, files: Any, model: Any, size: Any, pixels: Any, strength: Any, format: Any, quality: Any, strip: Any,
        request: gr.Request,
    ) -> AsyncIterator[Changes]:  # fmt: skip
        """Upscale, and show how it goes."""
        try:
            uploads = self._desk.arrived(files, request)
            if not uploads:
                raise Refusal("bad_request", "choose a picture first")
            takes_strength = self._desk.strength(model if isinstance(model, str) else None) is not None
            wish = wish_of(
                model=model,
                scale=_SIZES.get(size) if isinstance(size, str) else None,
                width=pixels if size == _WIDTH else None,
                height=pixels if size == _HEIGHT else None,
                strength=strength if takes_strength else None,
                format=None if format == _SAME else format,
                quality=quality if _ENDINGS.get(str(format)) in _WITH_QUALITY else None,
                strip_metadata=strip,
            )
            failed: list[str] = []
            async with aclosing(self._desk.work(uploads, wish, request)) as steps:
                begun = False
                async for step in steps:
                    yield ({} if begun else self._beginning()) | self._step(step, failed, request)
                    begun = True
        except Refusal as refusal:
            raise _error(refusal) from refusal
        yield await self._ending(failed, request)

    def _beginning(self) -> Changes:
        """The page as work begins."""
        hidden = (self.slider, self.picker, self.failures, self.summary, self.zip, self.downloads, self.start)
        return {**{part: gr.update(visible=False) for part in hidden}, self.stop: gr.update(visible=True)}

    def _step(self, step: Step, failed: list[str], request: gr.Request) -> Changes:
        changes: Changes = {self.progress: gr.update(value=looks.progress(step), visible=True)}
        if step.jpeg:
            changes[self.growing] = gr.update(value=looks.growing(step.name, step.jpeg), visible=True)
        if step.refused:
            failed.append(str(step.refused))
            changes[self.failures] = gr.update(value=looks.failures(failed), visible=True)
        if step.result:
            changes |= self._results(failed, request)
        return changes

    def _results(self, failed: list[str], request: gr.Request) -> Changes:
        results = self._desk.visit(request).results
        return {
            self.downloads: gr.update(value=[str(result.path) for result in results], visible=bool(results)),
            self.summary: gr.update(value=looks.summary(results, len(failed)), visible=True),
        }

    async def _ending(self, failed: list[str], request: gr.Request) -> Changes:
        """The page as work ends: the first result to compare, and all to download."""
        results = self._desk.visit(request).results
        several = len(results) > 1
        changes: Changes = {
            self.start: gr.update(visible=True),
            self.stop: gr.update(visible=False),
            self.progress: gr.update(visible=False),
            self.growing: gr.update(value=looks.EMPTY, visible=not results),
            self.failures: gr.update(value=looks.failures(failed), visible=bool(failed)),
            **self._results(failed, request),
        }
        if results:
            labels = _labels(results)
            changes[self.slider] = gr.update(value=(str(results[0].before), str(results[0].after)), visible=True)
            changes[self.picker] = gr.update(choices=labels, value=labels[0], visible=several)
        if several:
            changes[self.zip] = gr.update(value=str(await self._desk.pack(request)), visible=True)
        return changes


def _labels(results: Sequence[Result]) -> list[str]:
    """Names to choose results by, no two alike."""
    return [f"{number}. {result.name}" for number, result in enumerate(results, start=1)]


def _slider(own: float | None, value: float | None) -> Any:
    """The strength of a model whose default is `own`; hidden where that is None."""
    return gr.update(visible=False) if own is None else gr.update(value=own if value is None else value, visible=True)


def _error(refusal: Refusal) -> gr.Error:
    return gr.Error(f"{refusal}.", print_exception=False)
