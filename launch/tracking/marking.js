// Marks on one frame of a video: points by clicks, boxes by dragging, objects by painting. `marking.py` shows it and reads what is marked.
//
// props: video (whose name a new one changes), picture (URL of the frame), frame (its number), width and height (pixels of the video); and
// value, which is written here: {"mode", "width", "height", "points": [{frame, x, y}], "box": [{frame, x0, y0, x1, y1}], "mask": [{frame, object, radius, path}]}.
const marks = { mode: "points", points: [], box: [], mask: [] };
const colors = COLORS; // of objects and points, filled in by marking.py
const picture = new Image();
const brush = { object: 1, size: 24 };
let drawing = null; // the box or stroke under the pointer

const canvas = () => element.querySelector("canvas");
const color = (number) => colors[(number - 1) % colors.length];
const list = () => marks[marks.mode];

function place(event) {
  const box = canvas().getBoundingClientRect();
  const inside = (part, size) => Math.min(Math.max(part * size, 0), size - 1);
  const x = inside((event.clientX - box.left) / box.width, props.width);
  const y = inside((event.clientY - box.top) / box.height, props.height);
  return [Math.floor(x), Math.floor(y)];
}

// ---- what is seen

function draw() {
  const at = canvas();
  if (!at || !props.width) return;
  if (at.width !== props.width || at.height !== props.height) [at.width, at.height] = [props.width, props.height];
  const pen = at.getContext("2d");
  pen.clearRect(0, 0, at.width, at.height);
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, at.width, at.height);
  const unit = Math.min(at.width, at.height) / 75;
  if (marks.mode === "mask") drawStrokes(pen);
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

// strokes lie on a sheet of their own: an eraser takes away paint, not the picture
function drawStrokes(pen) {
  const sheet = new OffscreenCanvas(props.width, props.height);
  const ink = sheet.getContext("2d");
  ink.lineCap = ink.lineJoin = "round";
  for (const stroke of [...marks.mask, ...(drawing ? [drawing] : [])]) {
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

// the tools that suit the mode, and which are chosen
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
    mask: "Paint each object in a colour of its own.",
  };
  element.querySelector(".hint").textContent = hints[marks.mode] + (other ? ` Marks on ${other} other frame${other > 1 ? "s" : ""} are kept.` : "");
}

function tell() {
  props.value = JSON.stringify({ ...marks, width: props.width, height: props.height });
  requestAnimationFrame(draw);
}

// ---- what is done; the listeners sit on the element itself, whose inside may be drawn anew

element.addEventListener("pointerdown", (event) => {
  if (event.target.tagName !== "CANVAS" || event.button || !props.width) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  const [x, y] = place(event);
  const frame = props.frame;
  if (marks.mode === "points") {
    marks.points.push({ frame, x, y });
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
    if (!slip) list().push(mark);
    tell();
  });
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.mode) marks.mode = button.dataset.mode;
  if (button.dataset.object) brush.object = Number(button.dataset.object);
  if (button.dataset.act === "undo") list().pop();
  if (button.dataset.act === "clear") list().length = 0;
  tell();
});

element.addEventListener("input", (event) => {
  if (event.target.name === "size") brush.size = Number(event.target.value);
});

picture.addEventListener("load", draw);
watch("picture", () => {
  picture.src = props.picture;
  draw();
});
watch("video", () => {
  Object.assign(marks, { points: [], box: [], mask: [] });
  tell();
});
if (props.picture) picture.src = props.picture;
draw();
