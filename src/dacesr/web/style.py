"""How the web page looks and behaves in the browser: theme, style sheet, script."""

from gradio.themes import Base

ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3"
 fill="#0f766e"/><path d="M3 3h4v4H3zM9 9h4v4H9z" fill="#fff"/></svg>"""

CSS = """
:root, .dark { --page-accent: #0f766e; }
.dark { --page-accent: #2dd4bf; }
.gradio-container, .gradio-container > .main { width: 100%; }
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
.top h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -.02em; margin: 0 0 .15rem; }
.top p { color: var(--body-text-color-subdued); margin: 0; }
:focus-visible { outline: 3px solid var(--page-accent) !important; outline-offset: 2px; }
#slider [data-testid="slider"]:focus-visible { outline: none !important; }
#slider [data-testid="slider"]:focus-visible .icon-wrap { outline: 3px solid var(--page-accent); outline-offset: 3px; }
.empty { display: grid; place-content: center; justify-items: center; gap: .75rem;
  min-height: 340px; padding: 1rem; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: 12px; color: var(--body-text-color-subdued); }
.empty svg { width: 96px; fill: none; stroke: currentColor; stroke-width: 2; opacity: .6; }
.empty p { margin: 0; }
.growing { margin: 0; display: grid; place-items: center; border-radius: 12px; overflow: hidden;
  background: var(--block-background-fill); }
.growing img { display: block; max-width: 100%; max-height: 72vh; min-height: 200px; object-fit: contain; }
.work p { margin: .35rem 0 0; font-variant-numeric: tabular-nums; }
.work progress { appearance: none; width: 100%; height: 10px; display: block; border: 0; border-radius: 5px;
  overflow: hidden; background: var(--border-color-primary); }
.work progress::-webkit-progress-bar { background: var(--border-color-primary); }
.work progress::-webkit-progress-value { background: var(--page-accent); transition: width .25s; }
.work progress::-moz-progress-bar { background: var(--page-accent); }
.work progress:indeterminate { animation: waits 1.6s ease-in-out infinite alternate; }
@keyframes waits { from { opacity: 1; } to { opacity: .45; } }
@media (prefers-reduced-motion: reduce) { .work progress, .work progress::-webkit-progress-value { animation: none;
  transition: none; } }
.says { margin: 0; padding: .6rem .9rem; border-radius: 10px; background: var(--background-fill-secondary); }
.says p, .says ul { margin: .15rem 0; }
.says .tag { display: inline-block; padding: .05rem .5rem; margin: .1rem .15rem .1rem 0; border-radius: 99px;
  border: 1px solid var(--border-color-primary); font-size: .9em; }
.failed { margin: 0; padding: .6rem .9rem; border-left: 4px solid #dc2626; border-radius: 4px;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.failed p { margin: .15rem 0; }
#downloads [aria-label="Remove this file"] { display: none; }
.examples { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.examples span { color: var(--body-text-color-subdued); font-size: .9em; }
.examples button { padding: 0; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden;
  cursor: pointer; line-height: 0; }
.examples img { width: 72px; height: 54px; object-fit: cover; margin: 0; }
"""

JS = """() => {
  // pictures on the clipboard go where chosen ones go
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const input = document.querySelector("#pictures input[type=file]");
    if (!pasted.length || !input) return;
    event.preventDefault();
    const list = new DataTransfer();
    pasted.forEach((file) => list.items.add(file));
    input.files = list.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // the divider between before and after, which gradio moves by mouse and touch only, for the keyboard
  const share = (handle) => {
    const [grip, all] = [handle.firstElementChild, handle.parentElement].map((one) => one.getBoundingClientRect());
    return (100 * (grip.x + grip.width / 2 - all.x)) / all.width;
  };
  const tell = (handle) => {
    const percent = Math.round(share(handle));
    handle.setAttribute("aria-valuenow", percent);
    handle.setAttribute("aria-valuetext", `${percent} % before, then after`);
  };
  const move = (handle, percent) => {
    const all = handle.parentElement.getBoundingClientRect();
    const at = (part) => ({ clientX: all.x + (all.width * part) / 100, clientY: all.y, view: window, bubbles: true });
    handle.dispatchEvent(new MouseEvent("mousedown", at(share(handle))));
    window.dispatchEvent(new MouseEvent("mousemove", at(Math.min(100, Math.max(0, percent)))));
    window.dispatchEvent(new MouseEvent("mouseup", at(percent)));
    requestAnimationFrame(() => tell(handle));
  };
  const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10 };
  const equip = (handle) => {
    Object.entries({ tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-label": "Divider between before and after" }).forEach(([name, value]) => handle.setAttribute(name, value));
    tell(handle);
    handle.addEventListener("keydown", (event) => {
      const goal = { Home: 0, End: 100 }[event.key] ?? (event.key in steps ? share(handle) + steps[event.key] : null);
      if (goal === null) return;
      event.preventDefault();
      move(handle, goal);
    });
    window.addEventListener("mouseup", () => requestAnimationFrame(() => handle.isConnected && tell(handle)));
  };
  new MutationObserver(() => {
    document.querySelectorAll('#slider [data-testid="slider"]:not([tabindex])').forEach(equip);
    const unnamed = document.querySelectorAll('#slider img[alt=""]');
    unnamed.forEach((image, place) => (image.alt = ["before", "after"][place]));
  }).observe(document.body, { childList: true, subtree: true });
}"""


def theme() -> Base:
    """Calm, with the fonts of the system, so that nothing is fetched."""
    return Base(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",  # gradio's own is too pale to be read
        block_border_width="1px",
        block_shadow="none",
    )
