"""The one endpoint of the page that gradio's client may call: `/upscale`."""

from typing import Any

import gradio as gr

from dacesr.serving.wishes import Refusal
from dacesr.web.desk import Desk

_ABOUT = """Upscale one picture. Fields left out, 0 and empty text leave the choice to the server. What is refused is
told by a stable code, a colon and a sentence."""


def add_endpoint(desk: Desk) -> None:
    """Add it to the Blocks around, as parts that nobody sees."""

    async def upscale(
        picture: Any,
        model: Any = None,
        scale: Any = None,
        width: Any = None,
        height: Any = None,
        strength: Any = None,
        format: Any = None,
        quality: Any = None,
        strip_metadata: Any = False,
        request: gr.Request = None,  # type: ignore[assignment]  # gradio always gives one
    ) -> tuple[str, dict[str, Any]]:
        fields = {
            "model": model, "scale": scale, "width": width, "height": height, "strength": strength, "format": format,
            "quality": quality, "strip_metadata": strip_metadata,
        }  # fmt: skip
        try:
            return await desk.upscale({"picture": picture, **fields}, request)
        except Refusal as refusal:
            raise gr.Error(f"{refusal.code}: {refusal}", print_exception=False) from refusal

    with gr.Group(visible=False):
        inputs = [
            gr.File(label="picture"),
            gr.Textbox(None, label="model"),
            gr.Number(None, label="scale"),
            gr.Number(None, label="width"),
            gr.Number(None, label="height"),
            gr.Number(None, label="strength"),
            gr.Textbox(None, label="format"),
            gr.Number(None, label="quality"),
            gr.Checkbox(False, label="strip_metadata"),
        ]
        outputs = [gr.File(label="result"), gr.JSON(label="what was made")]
        gr.Button().click(
            upscale,
            inputs,
            outputs,
            preprocess=False,
            concurrency_limit=None,
            api_name="upscale",
            api_description=_ABOUT,
        )
