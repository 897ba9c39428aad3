// Lets the user mark a frame of a video: points by clicks, boxes by dragging, objects by painting. `marking.py` shows it and reads the marks.
//
// props: video (path; a change clears the marks), picture (URL of the frame), frame (its number), width and height (pixels of the video),
// tracked (URL of the tracked objects on a transparent background, or empty), confidence (of each frame; empty if nothing was tracked), and
// value, which is written here: {"mode", "width", "height", "points": [{frame, x, y}], "box": [{frame, x0, y0, x1, y1}], "mask": [{frame, object, radius, path}]}.
// Requests another frame with the event `select`, whose value is the frame's number.
const marks = { mode: "points", points: [], box: [], mask: [] };
const colors = COLORS; // of objects and points, filled in by marking.py
const picture = new Image();
const tracked = new Image();
const done = []; // the mode of each mark, in the order in which the marks were made
const brush = { object: 1, size: 24 };
let drawing = null; // the box or stroke under the pointer

const canvas = () => element.querySelector("canvas.frame");
const timeline = () => element.querySelector("canvas.timeline");
const color = (number) => colors[(number - 1) % colors.length];
const list = () => marks[marks.mode];

function place(event) {
  const box = canvas().getBoundingClientRect();
  const inside = (part, size) => Math.min(Math.max(part * size, 0), size - 1);
  const x = inside((event.clientX - box.left) / box.width, props.width);
  const y = inside((event.clientY - box.top) / box.height, props.height);
  return [Math.floor(x), Math.floor(y)];
}

// ---- drawing

function draw() {
  const at = canvas();
  if (!at || !props.width) return;
  if (at.width !== props.width || at.height !== props.height) [at.width, at.height] = [props.width, props.height];
  const pen = at.getContext("2d");
  pen.clearRect(0, 0, at.width, at.height);
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, at.width, at.height);
  const unit = Math.min(at.width, at.height) / 75;
  drawObjects(pen);
  const shown = [...list(), ...(drawing && marks.mode === "box" ? [drawing] : [])];
  shown.forEach((mark, index) => {
    if (mark.frame !== props.frame) return;
    if (marks.mode === "points") drawPoint(pen, mark, index + 1, unit);
    if (marks.mode === "box") drawBox(pen, mark, index + 1, unit);
  });
  dress();
}

function drawPoint(pen, { x, y }, number, unit) {
  for (const [radius, paint] of [[unit * 1.35, "white"], [unit, color(number)]]) {
    pen.beginPath();
    pen.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    pen.fillStyle = paint;
    pen.fill();
  }
}

function drawBox(pen, { x0, y0, x1, y1 }, number, unit) {
  pen.lineWidth = unit * 0.9;
  pen.strokeStyle = "white";
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  pen.lineWidth = unit * 0.5;
  pen.strokeStyle = color(number);
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
}

// tracked objects and strokes are drawn on a separate canvas, so that the eraser removes paint, not the picture
function drawObjects(pen) {
  const sheet = new OffscreenCanvas(props.width, props.height);
  const ink = sheet.getContext("2d");
  ink.lineCap = ink.lineJoin = "round";
  if (props.tracked && tracked.complete && tracked.naturalWidth) ink.drawImage(tracked, 0, 0, props.width, props.height);
  for (const stroke of [...marks.mask, ...(drawing?.path ? [drawing] : [])]) {
    if (stroke.frame !== props.frame) continue;
    ink.globalCompositeOperation = stroke.object ? "source-over" : "destination-out";
    ink.strokeStyle = stroke.object ? color(stroke.object) : "black";
    ink.lineWidth = 2 * stroke.radius;
    ink.beginPath();
    stroke.path.forEach(([x, y], index) => (index ? ink.lineTo(x, y) : ink.moveTo(x, y)));
    if (stroke.path.length === 1) ink.lineTo(stroke.path[0][0] + 0.01, stroke.path[0][1]);
    ink.stroke();
  }
  pen.globalAlpha = 0.6;
  pen.drawImage(sheet, 0, 0);
  pen.globalAlpha = 1;
}

// the confidence of each frame, which frames are marked, and which one is shown
function drawTimeline() {
  const at = timeline(), confidence = props.confidence || [];
  at.hidden = confidence.length < 2;
  if (at.hidden) return;
  [at.width, at.height] = [Math.max(at.clientWidth, 1), Math.max(at.clientHeight, 1)];
  const pen = at.getContext("2d"), step = at.width / confidence.length;
  const style = getComputedStyle(element);
  pen.fillStyle = style.getPropertyValue("--background-fill-secondary") || "#eee";
  pen.fillRect(0, 0, at.width, at.height);
  confidence.forEach((sure, frame) => {
    pen.fillStyle = `hsl(${120 * sure} 65% 45%)`; // from red (0) to green (1)
    const height = Math.max(sure * at.height, 2);
    pen.fillRect(frame * step, at.height - height, Math.max(step - (step > 3 ? 1 : 0), 1), height);
  });
  pen.fillStyle = style.color;
  for (const frame of new Set(list().map((mark) => mark.frame))) {
    const middle = (frame + 0.5) * step;
    pen.beginPath();
    pen.moveTo(middle - 5, 0);
    pen.lineTo(middle + 5, 0);
    pen.lineTo(middle, 9);
    pen.fill();
  }
  pen.strokeStyle = style.color;
  pen.lineWidth = 2;
  pen.strokeRect(props.frame * step, 1, Math.max(step, 2), at.height - 2);
}

// shows the tools of the current mode, and which of them are selected
function dress() {
  for (const button of element.querySelectorAll("[data-mode]")) button.ariaPressed = String(button.dataset.mode === marks.mode);
  for (const button of element.querySelectorAll("[data-object]")) {
    button.ariaPressed = String(Number(button.dataset.object) === brush.object);
    button.style.setProperty("--paint", Number(button.dataset.object) ? color(Number(button.dataset.object)) : "transparent");
  }
  element.querySelector(".brush").hidden = marks.mode !== "mask";
  const other = new Set(list().map((mark) => mark.frame).filter((frame) => frame !== props.frame)).size;
  const hints = {
    points: "Click on what to follow.",
    box: "Drag a box around each object.",
    mask: "Paint each object in a colour of its own. Keys: 1 to 8, E erases, [ and ] change the brush, \u2190 and \u2192 the frame.",
  };
  drawTimeline();
  element.querySelector(".hint").textContent = hints[marks.mode] + (other ? ` Marks on ${other} other frame${other > 1 ? "s" : ""} are kept.` : "");
}

function tell() {
  props.value = JSON.stringify({ ...marks, width: props.width, height: props.height });
  requestAnimationFrame(draw);
}

function add(mark) {
  list().push(mark);
  done.push(marks.mode);
}

function undo() {
  const mode = done.pop();
  if (!mode) return;
  marks.mode = mode;
  list().pop();
}

function clear() {
  for (let at = done.length - 1; at >= 0; at--) if (done[at] === marks.mode) done.splice(at, 1);
  list().length = 0;
}

function go(frame) {
  const last = (props.confidence?.length || Number(document.querySelector("#frame input[type=range]")?.max) + 1 || 1) - 1;
  const wanted = Math.min(Math.max(frame, 0), last);
  if (wanted !== props.frame) trigger("select", { index: wanted, value: wanted, selected: true });
}

// ---- events; the listeners are on the element itself, because its content may be replaced

element.addEventListener("pointerdown", (event) => {
  if (event.target === timeline()) {
    const box = event.target.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * props.confidence.length));
    return;
  }
  if (event.target !== canvas() || event.button || !props.width) return;
  event.preventDefault();
  event.target.focus({ preventScroll: true });
  event.target.setPointerCapture(event.pointerId);
  const [x, y] = place(event);
  const frame = props.frame;
  if (marks.mode === "points") {
    add({ frame, x, y });
    tell();
  }
  if (marks.mode === "box") drawing = { frame, x0: x, y0: y, x1: x + 1, y1: y + 1, from: [x, y] };
  if (marks.mode === "mask") drawing = { frame, object: brush.object, radius: brush.size / 2, path: [[x, y]] };
  draw();
});

element.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const [x, y] = place(event);
  if (marks.mode === "mask") {
    drawing.path.push([x, y]);
  } else {
    const [fromX, fromY] = drawing.from;
    Object.assign(drawing, {
      x0: Math.min(x, fromX), y0: Math.min(y, fromY), x1: Math.max(x, fromX) + 1, y1: Math.max(y, fromY) + 1,
    });
  }
  draw();
});

for (const name of ["pointerup", "pointercancel"]) {
  element.addEventListener(name, () => {
    if (!drawing) return;
    const { from, ...mark } = drawing;
    drawing = null;
    const slip = marks.mode === "box" && (mark.x1 - mark.x0 < 3 || mark.y1 - mark.y0 < 3); // a click, not a box
    if (!slip) add(mark);
    tell();
  });
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.mode) marks.mode = button.dataset.mode;
  if (button.dataset.object) brush.object = Number(button.dataset.object);
  if (button.dataset.act === "undo") undo();
  if (button.dataset.act === "clear") clear();
  tell();
});

function resize(size) {
  const slider = element.querySelector("[name=size]");
  slider.value = size;
  brush.size = Number(slider.value);
}

element.addEventListener("keydown", (event) => {
  if (event.target !== canvas() || drawing) return;
  const keys = {
    ArrowLeft: () => go(props.frame - 1),
    ArrowRight: () => go(props.frame + 1),
    "[": () => resize(brush.size - 4),
    "]": () => resize(brush.size + 4),
    e: () => (brush.object = 0),
  };
  const withControl = event.ctrlKey || event.metaKey;
  if (withControl && event.key === "z") undo();
  else if (withControl) return;
  else if (/^[1-8]$/.test(event.key)) brush.object = Number(event.key);
  else if (event.key in keys) keys[event.key]();
  else return;
  event.preventDefault();
  tell();
});

element.addEventListener("input", (event) => {
  if (event.target.name === "size") brush.size = Number(event.target.value);
});

function show() {
  picture.src = props.picture;
  if (props.tracked) tracked.src = props.tracked;
  tell(); // the component loses its value when it is shown again
}

picture.addEventListener("load", draw);
tracked.addEventListener("load", draw);
window.addEventListener("resize", draw);
watch(["picture", "tracked", "confidence", "frame"], show);
watch("video", () => {
  Object.assign(marks, { points: [], box: [], mask: [] });
  done.length = 0;
  tell();
});
if (props.picture) show();
draw();
