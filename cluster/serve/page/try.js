"use strict";

const MASK_COLOUR = [230, 159, 0];
const MASK_OPACITY = 0.45;
const SMALLEST_BOX_PX = 3;

const part = (id) => document.getElementById(id);
const canvas = part("canvas");
const pen = canvas.getContext("2d");

/** What is on the page: the file as it was given, its pixels, the tinted mask over it, and the box around the object. */
const shown = { file: null, picture: null, tint: null, box: null, corner: null, asked: 0, maskUrl: null };

function say(text, wrong = false) {
  part("status").textContent = text;
  part("status").classList.toggle("wrong", wrong);
}

function draw() {
  if (!shown.picture) return;
  pen.drawImage(shown.picture, 0, 0);
  if (shown.tint) pen.drawImage(shown.tint, 0, 0);
  if (!shown.box) return;
  const [x0, y0, x1, y1] = shown.box;
  const width = Math.max(1, Math.max(canvas.width, canvas.height) / 300);
  for (const [colour, line] of [["#000", 2 * width], ["#fff", width]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.strokeRect(x0, y0, x1 - x0 + 1, y1 - y0 + 1);
  }
}

function forget() {
  shown.tint = null;
  part("result").hidden = true;
  part("save").hidden = true;
}

async function open(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    say(`${file.name} cannot be shown: this browser does not read it as a picture.`, true);
    return;
  }
  Object.assign(shown, { file, picture, box: null, corner: null });
  forget();
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.hidden = false;
  part("invitation").hidden = true;
  part("drop").classList.add("filled");
  for (const id of ["again", "other"]) part(id).disabled = false;
  part("unbox").disabled = true;
  draw();
  await segment();
}

function credentials() {
  const token = part("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function explain(response) {
  if (response.status === 401) {
    part("locked").hidden = false;
    return "This server wants a token.";
  }
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return `The server answered ${response.status}.`;
  }
}

async function segment() {
  if (!shown.file) return;
  const number = ++shown.asked;
  const form = new FormData();
  form.append("image", shown.file);
  form.append("domain", part("domain").value);
  if (shown.box) form.append("prompt", JSON.stringify({ box: shown.box }));
  say("Segmenting ...");
  try {
    const response = await fetch("v1/mask", { method: "POST", body: form, headers: credentials() });
    if (number !== shown.asked) return;
    if (!response.ok) {
      forget();
      draw();
      say(await explain(response), true);
      return;
    }
    const choice = JSON.parse(response.headers.get("X-InfoSAM-Choice"));
    const blob = await response.blob();
    const mask = await createImageBitmap(blob);
    if (number !== shown.asked) return;
    show(mask, blob, choice);
  } catch (error) {
    if (number === shown.asked) say(`The server cannot be reached: ${error.message}`, true);
  }
}

/** The mask as a see-through colour with an edge, of the picture's size, and the share of the picture it covers. */
function tinted(mask) {
  const { width, height } = mask;
  const layer = new OffscreenCanvas(width, height);
  const brush = layer.getContext("2d");
  brush.drawImage(mask, 0, 0);
  const pixels = brush.getImageData(0, 0, width, height);
  const object = Uint8Array.from({ length: width * height }, (_, i) => pixels.data[4 * i] > 127);
  const line = Math.max(1, Math.round(Math.max(width, height) / 300));
  const differs = (x, y) => x >= 0 && y >= 0 && x < width && y < height && !object[y * width + x];
  let inside = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      inside += object[i];
      const edge = differs(x - line, y) || differs(x + line, y) || differs(x, y - line) || differs(x, y + line);
      const opacity = edge ? 1 : MASK_OPACITY;
      pixels.data.set([...MASK_COLOUR, object[i] ? 255 * opacity : 0], 4 * i);
    }
  }
  brush.putImageData(pixels, 0, 0);
  return { layer, share: inside / (width * height) };
}

function show(mask, blob, choice) {
  const { layer, share } = tinted(mask);
  shown.tint = layer;
  draw();
  const version = choice.version ? `, version ${choice.version}` : "";
  part("chosen").textContent = choice.domain ? choice.domain + version : "plain SAM";
  const limit = choice.threshold === null ? "" : ` (accepted up to ${choice.threshold.toPrecision(3)})`;
  part("score").textContent = choice.score === null ? "not asked" : choice.score.toPrecision(3) + limit;
  part("area").textContent = share ? `${(100 * share).toFixed(1)} % of the picture` : "empty";
  part("reason").textContent = choice.reason;
  part("result").hidden = false;
  if (shown.maskUrl) URL.revokeObjectURL(shown.maskUrl);
  shown.maskUrl = URL.createObjectURL(blob);
  part("save").href = shown.maskUrl;
  part("save").hidden = false;
  say("Done.");
}

/** Pixel of the picture under the pointer, kept inside it. */
function under(event) {
  const place = canvas.getBoundingClientRect();
  const inside = (value, size) => Math.min(size - 1, Math.max(0, Math.floor(value)));
  return [
    inside(((event.clientX - place.left) * canvas.width) / place.width, canvas.width),
    inside(((event.clientY - place.top) * canvas.height) / place.height, canvas.height),
  ];
}

function between(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  shown.corner = under(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (!shown.corner) return;
  shown.box = between(shown.corner, under(event));
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!shown.corner) return;
  const box = between(shown.corner, under(event));
  shown.corner = null;
  const real = box[2] - box[0] >= SMALLEST_BOX_PX && box[3] - box[1] >= SMALLEST_BOX_PX;
  shown.box = real ? box : null;
  part("unbox").disabled = !real;
  forget();
  draw();
  segment();
});

for (const name of ["dragenter", "dragover"]) {
  part("drop").addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  part("drop").addEventListener(name, () => part("drop").classList.remove("over"));
}
part("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
part("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) open(file);
  event.target.value = "";
});
part("domain").addEventListener("change", segment);
part("again").addEventListener("click", segment);
part("other").addEventListener("click", () => part("file").click());
part("unbox").addEventListener("click", () => {
  shown.box = null;
  part("unbox").disabled = true;
  forget();
  draw();
  segment();
});
part("token").addEventListener("change", () => {
  listDomains();
  segment();
});

async function listDomains() {
  const response = await fetch("v1/domains", { headers: credentials() }).catch(() => null);
  if (!response) return;
  if (response.status === 401) part("locked").hidden = false;
  if (!response.ok) return;
  const { domains } = await response.json();
  const select = part("domain");
  while (select.options.length > 2) select.remove(2);
  for (const { domain, automatic } of domains) {
    select.add(new Option(automatic ? domain : `${domain} (only by name)`, domain));
  }
}

listDomains();
